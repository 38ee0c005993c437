"""Draw charts as small SVG files that are readable on light and on dark pages: groups of bars, and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

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


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """Draw points joined by lines; both axes are linear, from the least to the largest value."""
    out, lower = legend(list(series))
    left, right, top = 70, WIDTH - 30, TOP + lower
    bottom = top + 280
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    (x_least, x_most), (y_least, y_most) = (min(xs), max(xs)), _room(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (x - x_least) / ((x_most - x_least) or 1),
            bottom - (bottom - top) * (y - y_least) / ((y_most - y_least) or 1),
        )

    for step in range(5):
        y = y_least + (y_most - y_least) * step / 4
        height = place(x_least, y)[1]
        out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        out.append(f'<text x="{left - 8}" y="{height + 4:.1f}" text-anchor="end">{y:.3f}</text>')
        x = x_least + (x_most - x_least) * step / 4
        out.append(f'<text x="{place(x, y_least)[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{x:.1f}x</text>')
    for index, points in enumerate(series.values()):
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour(index)}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour(index)}"/>' for x, y in placed]
    caption = f"{up}, over {across}"
    out.append(f'<text x="{(left + right) / 2:.0f}" y="{bottom + 38}" text-anchor="middle">{escape(caption)}</text>')
    return document(title, out, bottom + 50)


def _room(least: float, most: float) -> tuple[float, float]:
    margin = 0.05 * (most - least) or 0.01
    return least - margin, most + margin


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
