"""The frontier: points of all methods on logarithmic axes, the chosen one marked."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from seed_exporter.report import svg
from seed_exporter.report.frontier import Point, frontier

SEEDS = [Point("seed", 100_000, 0.1), Point("seed", 200_000, 0.01), Point("seed", 400_000, 0.001)]
SVG = "{http://www.w3.org/2000/svg}"


def circles(drawn: str) -> list[tuple[float, float]]:
    return [
        (float(each.get("cx", "")), float(each.get("cy", ""))) for each in ET.fromstring(drawn).iter(f"{SVG}circle")
    ]


def test_equal_ratios_are_equal_distances() -> None:
    (x0, y0), (x1, y1), (x2, y2) = circles(frontier(SEEDS))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert x0 < x1 < x2
    assert y0 < y1 < y2  # downwards: less damage


def test_no_damage_stands_below_all_others_and_is_called_0() -> None:
    drawn = frontier([*SEEDS, Point("xz", 3_000_000, 0.0)])
    assert max(circles(drawn), key=lambda place: place[1]) == circles(drawn)[-1]
    assert ">0</text>" in drawn


def test_the_chosen_point_has_a_ring_and_its_size() -> None:
    drawn = frontier(SEEDS, SEEDS[1])
    ring = [each for each in ET.fromstring(drawn).iter(f"{SVG}circle") if each.get("r") == "8"]
    assert len(ring) == 1
    assert (float(ring[0].get("cx", "")), float(ring[0].get("cy", ""))) == circles(drawn)[1]
    assert ">200.00 KB</text>" in drawn


def test_points_of_no_finite_damage_are_left_out() -> None:
    assert frontier([Point("a", 10, float("inf")), Point("b", 10, float("nan"))]) == ""
    assert len(circles(frontier([*SEEDS, Point("a", 10, float("inf"))]))) == 3


def test_one_point_alone_and_equal_points_can_be_drawn() -> None:
    assert len(circles(frontier(SEEDS[:1]))) == 1
    assert "nan" not in frontier([SEEDS[0], SEEDS[0], Point("b", 0, 0.0)])


@pytest.mark.parametrize("most", [1_000, 200_000, 500_000_000, 2_000_000_000])
def test_no_label_leaves_the_drawing(most: int) -> None:
    points = [Point("seed", most // 100, 0.1), Point("seed", most, 0.001)]
    for text in ET.fromstring(frontier(points, points[1])).iter(f"{SVG}text"):
        if text.get("text-anchor") == "middle":
            half = 7 * len(text.text or "") / 2  # as wide as legends take a letter
            assert half <= float(text.get("x", "")) <= svg.WIDTH - half, text.text


def test_names_are_escaped_and_many_take_more_lines() -> None:
    names = [f"a method <{index}> & more" for index in range(9)]
    drawn = frontier([Point(name, 1000 + index, 0.1) for index, name in enumerate(names)])
    shown = [text.text for text in ET.fromstring(drawn).iter(f"{SVG}text")]
    assert set(names) <= set(shown)
    heights = set(re.findall(r'<rect x="\d+" y="(\d+)"', drawn))
    assert len(heights) > 1
