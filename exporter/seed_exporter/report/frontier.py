"""Draw how much damage each method does at each size: the frontier between bytes and quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from seed_exporter.report import svg
from seed_exporter.report.text import size as size_text

_LEFT: Final = 76
_RIGHT: Final = svg.WIDTH - 40
"""Where the axis of bytes ends, so that half of its last label has room behind it [user units]."""
_HEIGHT: Final = 300
"""Height of the drawing between its axes [user units]."""
_LABEL: Final = 16
"""Least distance of two labels of the axis of damage [user units]."""
_NONE_BELOW: Final = 10.0
"""How far below the least damage that isn't 0 the line of no damage stands, as a ratio."""


@dataclass(frozen=True)
class Point:
    """One file of a model.

    Attributes:
        method: what made it; points of equal methods are joined.
        size: of the whole file [B].
        damage: distance of its outputs from the original's, 0 where they are the same; a point whose damage is not
            finite isn't drawn.
    """

    method: str
    size: int
    damage: float


def frontier(points: Sequence[Point], chosen: Point | None = None, measure: str = "damage") -> str:
    """Draw points on logarithmic axes, bytes to the right and damage upwards, as one SVG.

    Args:
        points: of all methods; the order of their first points is the order of the legend.
        chosen: the one to mark, not necessarily among `points`.
        measure: name of the damage, for the axis.

    Returns:
        The SVG; "" where there is no point to draw.
    """
    shown = [point for point in (*points, *([chosen] if chosen else [])) if math.isfinite(point.damage)]
    if not shown:
        return ""
    methods = list(dict.fromkeys(point.method for point in shown))
    axes = _Axes(shown)
    out, lower = svg.legend(methods)
    drawn = [*_grid(axes), *_caption(measure)]
    for index, method in enumerate(methods):
        series = sorted({point for point in shown if point.method == method}, key=lambda point: point.size)
        placed = [axes.place(point.size, point.damage) for point in series]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{svg.colour(index)}" stroke-width="2"/>')
        for point, (x, y) in zip(series, placed, strict=True):
            title = f"{point.method}: {size_text(point.size)}, {measure} {point.damage:.3g}"
            drawn.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{svg.colour(index)}">'
                f"<title>{escape(title)}</title></circle>"
            )
    if chosen is not None and math.isfinite(chosen.damage):
        x, y = axes.place(chosen.size, chosen.damage)
        colour = svg.colour(methods.index(chosen.method))
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{x:.1f}" y="{y - 12:.1f}" text-anchor="middle">{size_text(chosen.size)}</text>')
    out.append(f'<g transform="translate(0 {svg.TOP + lower})">{"".join(drawn)}</g>')
    return svg.document("Bytes and damage", out, svg.TOP + lower + _HEIGHT + 46)


class _Axes:
    """The range of both axes, with a margin; damage 0 stands below the least that isn't."""

    def __init__(self, points: Sequence[Point]) -> None:
        sizes = [math.log10(max(point.size, 1)) for point in points]
        damages = [math.log10(point.damage) for point in points if point.damage > 0]
        self.without = any(point.damage <= 0 for point in points)
        least, most = (min(damages), max(damages)) if damages else (-1.0, 0.0)
        self.floor = least - math.log10(_NONE_BELOW)
        self.x = _with_margin(min(sizes), max(sizes))
        self.y = _with_margin(self.floor if self.without else least, most)

    def place(self, size: float, damage: float) -> tuple[float, float]:
        """Compute where a point stands [user units]."""
        across, up = math.log10(max(size, 1)), math.log10(damage) if damage > 0 else self.floor
        (left, right), (low, high) = self.x, self.y
        return (
            _LEFT + (_RIGHT - _LEFT) * (across - left) / (right - left),
            _HEIGHT * (high - up) / (high - low),
        )


def _with_margin(least: float, most: float) -> tuple[float, float]:
    margin = 0.06 * (most - least) or 0.1
    return least - margin, most + margin


def _grid(axes: _Axes) -> list[str]:
    out = []
    for damage in svg.round_values(*axes.y):
        y = axes.place(1, damage)[1]
        if axes.without and y > axes.place(1, 0)[1] - _LABEL:
            continue
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{damage:.3g}</text>')
    if axes.without:
        y = axes.place(1, 0)[1]
        out.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">0</text>')
    for size in svg.round_values(*axes.x):
        x = axes.place(size, 0)[0]
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}"/>')
        out.append(f'<text x="{x:.1f}" y="{_HEIGHT + 18}" text-anchor="middle">{_round_size(size)}</text>')
    return out


def _round_size(size: float) -> str:
    """Write a size that has few digits without those behind the point."""
    number, unit = size_text(size).split(" ")
    return f"{float(number):g} {unit}"


def _caption(measure: str) -> list[str]:
    middle = (_LEFT + _RIGHT) / 2
    text = f"{measure} (up: worse), over the bytes of the whole file; both axes are logarithmic"
    return [f'<text x="{middle:.0f}" y="{_HEIGHT + 38}" text-anchor="middle">{escape(text)}</text>']
