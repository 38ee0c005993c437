"""Arithmetic of the benchmark of sizes: interpolation at equal damage, geometric means, the search for two points."""

from __future__ import annotations

import math

import pytest

from bench.equal_damage import Point, around, bound, bytes_at, geometric_mean, measured


def test_bytes_are_linear_over_the_logarithm_of_the_damage() -> None:
    points = [Point(100_000, 0.1), Point(200_000, 0.001)]
    assert bytes_at(points, 0.01) == pytest.approx(150_000)
    assert bytes_at(points, 0.1) == pytest.approx(100_000)
    assert bytes_at(points, 0.001 * 10**0.5) == pytest.approx(175_000)


def test_the_nearest_two_points_around_the_line_count() -> None:
    points = [Point(100, 0.1), Point(150, 0.02), Point(160, 0.009), Point(400, 0.0001)]
    assert around(points, 0.01) == (points[1], points[2])
    assert bytes_at(points, 0.01) == pytest.approx(150 + 10 * math.log(2) / math.log(0.02 / 0.009))


def test_points_needn_t_be_monotone() -> None:
    points = [Point(100, 0.1), Point(110, 0.004), Point(112, 0.02), Point(200, 0.001)]
    assert around(points, 0.01) in ((points[2], points[1]), (points[0], points[1]))
    assert 109 < bytes_at(points, 0.01) < 113


def test_with_points_on_one_side_only_the_outermost_bounds_the_bytes() -> None:
    below, above = [Point(100, 0.004), Point(90, 0.005)], [Point(100, 0.04), Point(200, 0.02)]
    assert (bytes_at(below, 0.01), bound(below, 0.01)) == (90, "at most")
    assert (bytes_at(above, 0.01), bound(above, 0.01)) == (200, "at least")
    assert bound([*below, *above], 0.01) == ""
    assert bytes_at([Point(100, 0.0)], 0.01) == 100


def test_geometric_means_are_those_of_the_logarithms() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert geometric_mean([0.8, 0.9, 1.0]) == pytest.approx(0.72 ** (1 / 3))


def made(bits: float) -> Point:
    """Return the point of an ideal coder of a million weights."""
    return Point(int(bits * 125_000), 4.0 ** (1 - bits))


@pytest.mark.parametrize("start", [2.0, 4.4, 9.0])
def test_the_search_ends_with_two_points_close_around_the_line(start: float) -> None:
    points = measured(made, start, 0.01, lambda bits, octaves: bits + octaves / 2)
    pair = around(points, 0.01)
    assert pair is not None
    assert len(points) <= 4
    assert bytes_at(points, 0.01) == pytest.approx(125_000 * (1 + math.log(100, 4)), rel=1e-3)


def test_the_search_ends_where_a_method_has_one_point_alone() -> None:
    assert len(measured(lambda setting: Point(100, 0.5), 1.0, 0.01, lambda bits, octaves: bits + octaves)) == 1


def test_the_search_goes_on_past_points_that_are_not_monotone() -> None:
    damages = {99: 0.006, 92: 0.005, 85: 0.02}
    settings = iter(damages)

    def uneven(setting: float) -> Point:
        size = next(settings)
        return Point(size, damages[size])

    points = measured(uneven, 99, 0.01, lambda size, octaves: size + 8 * octaves)
    assert [point.size for point in points] == [99, 92, 85]
