"""Compare sizes at equal damage: points of a method around a line, and log-linear interpolation between two of them.

Around a point, bytes are nearly linear in the logarithm of the damage: a bit less for each of the weights is four times
the squared error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.measure import Figures

CLOSE = 1.12
"""Ratio of the sizes of two points between which is interpolated."""
POINTS_MAX = 5
"""Most points of one method that are measured for one line."""
FLOOR = 1e-9
"""Damage that counts for none at all, which has no logarithm."""


@dataclass(frozen=True)
class Point:
    """One file of a method: its size [B], its damage, and what else was measured of it."""

    size: int
    damage: float
    figures: Figures = field(default_factory=dict, compare=False)


def around(points: Sequence[Point], line: float) -> tuple[Point, Point] | None:
    """Return the points between which to interpolate: one above the line and one not above, nearest in size.

    Damage needn't be monotone: of all such pairs the nearest in size counts. None where all are on one side.
    """
    above = [point for point in points if point.damage > line]
    below = [point for point in points if point.damage <= line]
    pairs = [(a, b) for a in above for b in below]
    return min(pairs, key=lambda pair: abs(math.log(pair[0].size / pair[1].size)), default=None)


def bytes_at(points: Sequence[Point], line: float) -> float:
    """Compute the bytes at which a method does this damage: linear over the logarithm of the damage.

    With points on one side only it is the size of the outermost: see `bound`.
    """
    pair = around(points, line)
    if pair is None:
        return float(_outermost(points, line).size)
    a, b = pair
    share = (math.log(line) - _log(a.damage)) / (_log(b.damage) - _log(a.damage))
    return a.size + share * (b.size - a.size)


def bound(points: Sequence[Point], line: float) -> str:
    """Return "" for bytes between two points, "at most" or "at least" where all points are on one side of the line."""
    if around(points, line) is not None:
        return ""
    return "at most" if points[0].damage <= line else "at least"


def _outermost(points: Sequence[Point], line: float) -> Point:
    """Return the point from which to go on towards the line, which all points are on one side of."""
    return min(points, key=_size) if points[0].damage <= line else max(points, key=_size)


def geometric_mean(values: Sequence[float]) -> float:
    """Compute the geometric mean of positive values."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def measured(
    make: Callable[[float], Point], start: float, line: float, move: Callable[[float, float], float]
) -> list[Point]:
    """Measure points of a method until two of them lie close around the line.

    Args:
        make: measures the point at a setting; settings are continuous, and more means less damage.
        start: the first setting.
        line: the damage wanted.
        move: `(setting, octaves)`: the setting at which damage is expected to be 2**-octaves of what it is there.

    Returns:
        All points, at most POINTS_MAX.
    """
    points: list[Point] = []
    at: dict[Point, float] = {}
    setting = start
    while len(points) < POINTS_MAX:
        point = make(setting)
        if point in points:
            break
        points.append(point)
        at[point] = setting
        pair = around(points, line)
        if pair is not None and max(pair, key=_size).size / min(pair, key=_size).size <= CLOSE:
            break
        if pair is None:
            last = _outermost(points, line)
            octaves = math.log2(max(last.damage, FLOOR) / line)
            # A little beyond the line, so that it lies between two points.
            setting = move(at[last], octaves + math.copysign(0.3, octaves))
        else:
            above, below = pair
            share = (_log(above.damage) - math.log(line)) / (_log(above.damage) - _log(below.damage))
            setting = at[above] + min(max(share, 0.2), 0.8) * (at[below] - at[above])
    return points


def _size(point: Point) -> int:
    return point.size


def _log(damage: float) -> float:
    return math.log(max(damage, FLOOR))
