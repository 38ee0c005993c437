"""Regions of a map of probabilities: areas that hang together, the rectangles around them, hostile maps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import BOXES_MAX
from seed_runtime.processing import areas, regions
from seed_runtime.processing.answers import Facts, Placement
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources

EXACT = {"grow": 0, "least": 0}


def answer(values: Any, place: Placement | None = None, top: int | None = None, **fields: Any) -> Any:
    """Return what a step says of a map; the picture is the map unless `place` says otherwise."""
    array = np.asarray(values, np.float32)
    height, width = array.shape[-2:]
    facts = Facts("it", placement=place or Placement(width, height, 1, 1, 0, 0, width, height), top=top)
    step = regions.read(Fields({"reads": {"map": "y"}, **fields}, "here"), Sources({}, dict))
    return step.answer([{"y": array.reshape(1, 1, *array.shape) if array.ndim == 2 else array}], facts)


def blank(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_an_upright_area_is_the_rectangle_around_its_pixels_and_its_score_their_mean() -> None:
    values = blank(20, 30)
    values[5:9, 10:21] = 0.8
    values[5, 10] = 0.4
    (found,) = answer(values, **EXACT).regions
    assert found.corners == ((10, 5), (20, 5), (20, 8), (10, 8))
    assert found.score == pytest.approx((43 * 0.8 + 0.4) / 44, abs=1e-6)


def test_an_area_is_grown_by_its_share_of_area_over_perimeter() -> None:
    values = blank(60, 100)
    values[20:31, 20:61] = 0.9
    # 40 x 10, so an area of 400, a perimeter of 100 and a distance of 6.
    (found,) = answer(values, grow=1.5).regions
    assert found.corners == ((14, 14), (66, 14), (66, 36), (14, 36))


def test_corners_are_of_the_picture_as_it_was_given() -> None:
    values = blank(25, 25)
    values[10:13, 5:11] = 0.9
    # A map of a quarter of a canvas of 100 x 100, on which a picture of 200 x 100 lies in a letterbox.
    place = Placement(200, 100, 0.5, 0.5, 0, 25, 100, 100)
    (found,) = answer(values, place, **EXACT).regions
    assert found.corners == ((40, 30), (80, 30), (80, 46), (40, 46))
    (grown,) = answer(values, place, least=0, grow=16).regions
    assert grown.corners[0] == (0, 0), "nothing lies outside of the picture"


@pytest.mark.parametrize("degrees", [-40, -10, 5, 30, 44])
def test_a_tilted_area_gets_a_tilted_rectangle(degrees: int) -> None:
    y, x = np.mgrid[:200, :200] - 100.0
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    values = np.where((np.abs(x * cos + y * sin) <= 70) & (np.abs(y * cos - x * sin) <= 12), 0.9, 0.0)
    (found,) = answer(values, **EXACT).regions
    expected = np.array([[-70, -12], [70, -12], [70, 12], [-70, 12]]) @ [[cos, sin], [-sin, cos]] + 100
    assert np.abs(np.array(found.corners) - expected).max() < 2
    assert found.score == pytest.approx(0.9, abs=0.04)


def test_regions_stand_from_top_to_bottom_and_top_takes_the_best() -> None:
    values = blank(40, 40)
    values[20:24, 2:30], values[2:6, 5:20], values[30:34, 5:20] = 0.7, 0.9, 0.8
    assert [round(each.score, 3) for each in answer(values).regions] == [0.9, 0.7, 0.8]
    assert [round(each.score, 3) for each in answer(values, top=2).regions] == [0.9, 0.8]
    assert len(answer(values, most=1).regions) == 1


def test_faint_and_tiny_areas_are_left_out() -> None:
    values = blank(40, 40)
    values[2:8, 5:20], values[20:22, 5:20] = 0.45, 0.9
    assert answer(values).regions == ()
    assert len(answer(values, score=0.4).regions) == 1
    assert len(answer(values, least=1).regions) == 1
    assert list(answer(values).lines()) == ["nothing is found"]


def test_dilation_joins_what_one_pixel_separates() -> None:
    values = blank(20, 40)
    values[5:10, 5:15] = values[5:10, 16:30] = 0.9
    assert len(answer(values).regions) == 2
    assert len(answer(values, dilate=True).regions) == 1


def flooded(mask: np.ndarray) -> np.ndarray:
    """Return a number for each pixel's area, pixel by pixel."""
    labels = np.zeros(mask.shape, int)
    for start in zip(*np.nonzero(mask), strict=True):
        todo = [start] if not labels[start] else []
        number = labels.max() + 1
        while todo:
            y, x = todo.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                labels[y, x] = number
                todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return labels


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.7])
def test_areas_are_those_of_a_flood_fill(share: float) -> None:
    mask = np.random.default_rng(3).random((31, 37)) < share
    runs = areas.runs_of(mask)
    found, expected = areas.joined(runs), flooded(mask)
    pairs = {
        (int(label), int(expected[row, column]))
        for label, row, first, end in zip(found, runs.rows, runs.first, runs.end, strict=True)
        for column in range(first, end)
    }
    assert len(pairs) == len({label for label, _ in pairs}) == len({number for _, number in pairs}) == expected.max()


def spiral(side: int) -> np.ndarray:
    """Return one long line that winds inwards."""
    mask = np.zeros((side, side), bool)
    low, high = 0, side - 1
    while low < high:
        mask[low, low : high + 1] = mask[low : high + 1, high] = mask[high, low : high + 1] = True
        mask[low + 2 : high + 1, low] = True
        mask[low + 2, low : low + 2] = True
        low, high = low + 2, high - 2
    return mask


def test_a_line_that_winds_is_one_area() -> None:
    assert len(np.unique(areas.joined(areas.runs_of(spiral(400))))) == 1


def test_a_region_has_lines_marks_and_an_object() -> None:
    values = blank(20, 30)
    values[5:9, 10:21] = 0.75
    found = answer(values, **EXACT)
    assert list(found.lines()) == [" 0.7500  10 5  20 5  20 8  10 8"]
    assert found.as_json() == {"regions": [{"score": 0.75, "corners": [[10, 5], [20, 5], [20, 8], [10, 8]]}]}
    (mark,) = found.marks()
    assert (mark.corners, mark.text) == (((10, 5), (20, 5), (20, 8), (10, 8)), "0.75")


def test_what_is_no_number_is_not_marked() -> None:
    values = np.full((20, 30), np.nan, np.float32)
    assert answer(values).regions == ()
    values[5:9, 10:21] = np.inf
    values[15:] = -np.inf
    (found,) = answer(values, **EXACT).regions
    assert found.score == 1
    assert json.dumps(answer(values, **EXACT).as_json(), allow_nan=False)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 1, 8, 8)), np.zeros((1, 2, 8, 8)), np.zeros(8), np.zeros((1, 0, 8)), np.zeros((8, 8), int)]
)
def test_outputs_that_are_no_map_are_refused(array: np.ndarray) -> None:
    step = regions.read(Fields({"reads": {"map": "y"}}, "here"), Sources({}, dict))
    with pytest.raises(FormatError, match="one map of probabilities is needed"):
        step.answer([{"y": array}], Facts("it", placement=Placement(8, 8, 1, 1, 0, 0, 8, 8)))
    with pytest.raises(FormatError, match="regions are of pictures"):
        step.answer([{"y": array}], Facts("it"))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"most": BOXES_MAX + 1}, "most"),
        ({"most": 0}, "'most' is 0"),
        ({"grow": 1e9}, "'grow' is 1e"),
        ({"least": -1}, "'least' is -1"),
        ({"threshold": 2}, "'threshold' is 2"),
        ({"reads": {"y": "y"}}, "the field 'map' is missing"),
    ],
)
def test_absurd_numbers_are_refused_when_the_description_is_read(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        answer(blank(4, 4), **fields)


def test_of_a_map_of_many_areas_the_largest_are_looked_at_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "BOXES_MAX", 64)
    values = blank(100, 100)
    values[::4, ::4] = values[1::4, ::4] = 0.9
    values[41:43, 41:53] = 0.9
    found = answer(values, **EXACT)
    assert len(areas.runs_of(values > 0.3)) > 1000
    assert len(found.regions) == 64
    assert max(each.corners[1][0] - each.corners[0][0] for each in found.regions) == 12


def test_a_map_of_more_runs_than_are_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "RUNS_MAX", 128)
    values = blank(16, 16)
    values[:, ::2] = 0.9
    assert answer(values).regions == (), "columns of one pixel are narrower than `least`"
    with pytest.raises(LimitError, match="runs of marked pixels"):
        answer(np.concatenate([values, values[:1]]))
    with pytest.raises(LimitError, match="pixels of the map"):
        answer(np.broadcast_to(np.float32(0), (1, 1, 1, 1 << 25)))
