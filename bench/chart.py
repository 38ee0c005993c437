"""Draw charts as small SVG files that are readable on light and on dark pages: groups of bars, and lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from seed_exporter.report import svg
from seed_exporter.report.svg import TOP, WIDTH, colour, document, legend

LABELS, BAR, GAP = 190, 16, 12


def bars(title: str, groups: Mapping[str, Mapping[str, float]], unit: str, logarithmic: bool = False) -> str:
    """Draw horizontal bars, one group for each key, with the same series in each and figures at their ends."""
    names = list(next(iter(groups.values())))
    largest = max(value for group in groups.values() for value in group.values())
    room = WIDTH - LABELS - 90

    def length(value: float) -> float:
        if logarithmic:
            return room * math.log10(max(value, 1)) / math.log10(largest)
        return room * value / largest

    out, lower = legend(names)
    y = first = TOP + lower
    for label, group in groups.items():
        middle = y + BAR * len(group) / 2 + 4
        out.append(f'<text x="{LABELS - 10}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        for index, value in enumerate(group.values()):
            end = LABELS + length(value)
            out.append(
                f'<rect x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR - 2}" fill="{colour(index)}"/>'
                f'<text x="{end + 6:.1f}" y="{y + BAR - 5}">{_figure(value)} {escape(unit)}</text>'
            )
            y += BAR
        y += GAP
    out.append(f'<line class="axis" x1="{LABELS}" x2="{LABELS}" y1="{first - 4}" y2="{y - GAP + 4}"/>')
    return document(title, out, y + 4)


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: with the unit.
        logarithmic: whether equal distances are equal ratios.
        show: writes a value beside its line.
    """

    label: str
    logarithmic: bool = False
    show: Callable[[float], str] = "{:.3g}".format

    def place(self, value: float) -> float:
        """Return where a value stands, in units of its own."""
        return math.log10(value) if self.logarithmic else value

    def ticks(self, least: float, most: float) -> list[float]:
        """Return the values that get a line, between two places."""
        if self.logarithmic:
            return svg.round_values(least, most)
        step = _round_step((most - least) / 6)
        return [step * index for index in range(math.ceil(least / step), math.floor(most / step) + 1)]


def lines(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], across: Axis, up: Axis, joined: bool = True
) -> str:
    """Draw points, joined by lines in their order unless told otherwise."""
    out, lower = legend(list(series))
    left, right, top = 70, WIDTH - 40, TOP + lower
    bottom = top + 280
    xs = [across.place(x) for points in series.values() for x, _ in points]
    ys = [up.place(y) for points in series.values() for _, y in points]
    (x_least, x_most), (y_least, y_most) = _room(min(xs), max(xs), 0 if joined else 0.05), _room(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (across.place(x) - x_least) / ((x_most - x_least) or 1),
            bottom - (bottom - top) * (up.place(y) - y_least) / ((y_most - y_least) or 1),
        )

    for value in up.ticks(y_least, y_most):
        height = bottom - (bottom - top) * (up.place(value) - y_least) / ((y_most - y_least) or 1)
        out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        out.append(f'<text x="{left - 8}" y="{height + 4:.1f}" text-anchor="end">{escape(up.show(value))}</text>')
    for value in across.ticks(x_least, x_most):
        x = left + (right - left) * (across.place(value) - x_least) / ((x_most - x_least) or 1)
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(across.show(value))}</text>')
    for index, (name, points) in enumerate(series.items()):
        placed = [place(x, y) for x, y in points]
        if joined:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour(index)}" stroke-width="2"/>')
        for (across_value, up_value), (x, y) in zip(points, placed, strict=True):
            note = escape(f"{name}: {across.show(across_value)}, {up.show(up_value)}")
            out.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if joined else 5}" fill="{colour(index)}">'
                f"<title>{note}</title></circle>"
            )
    scales = {(True, True): "; both logarithmic", (True, False): "; logarithmic across"}
    caption = f"{up.label}, over {across.label}{scales.get((across.logarithmic, up.logarithmic), '')}"
    out.append(f'<text x="{(left + right) / 2:.0f}" y="{bottom + 38}" text-anchor="middle">{escape(caption)}</text>')
    return document(title, out, bottom + 50)


def _round_step(least: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that isn't below a value above 0."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least)


def _room(least: float, most: float, share: float = 0.05) -> tuple[float, float]:
    margin = share * (most - least) or (0.01 if share or most == least else 0)
    return least - margin, most + margin


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
