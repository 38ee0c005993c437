"""Report of a comparison with peers: lines for a terminal, JSON, and a page with the frontier."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from seed_exporter.report.frontier import Point, frontier
from seed_exporter.report.shell import inline, page
from seed_exporter.report.text import size as size_text
from seed_runtime.cli.terminal import table
from seed_runtime.system.files import atomic_write

_HEAD: Final = ("method", "bytes", "ratio", "damage", "agreement", "cosine", "seconds")


@dataclass(frozen=True)
class Row:
    """One file of the model by one method, or why there is none.

    Attributes:
        method: what made it.
        setting: what was asked of the method, "" where it has one setting.
        size: of the whole file [B]; 0 where there is none.
        ratio: the source's weights over it.
        damage: by the metric of the comparison.
        agreement: share of equal decisions of the output that has fewest; None where none decides.
        cosine: of the output that is farthest; None where none is a number.
        seconds: time it took [s].
        reason: why there is no file.
    """

    method: str
    setting: str = ""
    size: int = 0
    ratio: float = 0.0
    damage: float = math.nan
    agreement: float | None = None
    cosine: float | None = None
    seconds: float = 0.0
    reason: str = ""

    @property
    def title(self) -> str:
        """The method, with its setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method

    def as_json(self) -> dict[str, Any]:
        """Return the fields for JSON, which has no infinity and no NaN: null stands for them."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(self).items()
        }
        return {**finite, "size": self.size or None, "ratio": round(self.ratio, 3) if self.size else None}


@dataclass
class Comparison:
    """All rows of one model, which come one after the other; what isn't done yet is missing.

    Attributes:
        model: its name.
        metric: word of the metric that damage is measured by.
        inputs: sentence on the inputs that it is measured on.
        weight_bytes: size of the source's weights [B].
        rows: so far.
        missing: commands that install peers which aren't here, by the peers' names.
    """

    model: str
    metric: str
    inputs: str = ""
    weight_bytes: int = 0
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def points(self) -> list[Point]:
        """Return what there is to draw."""
        return [Point(row.method, row.size, row.damage) for row in self.rows if row.size]

    def without(self) -> list[tuple[str, str]]:
        """Return the methods that made no file, with the reasons."""
        return [
            *((row.title, row.reason) for row in self.rows if row.reason),
            *((name, f"not installed; {command}") for name, command in self.missing.items()),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return what programs rely on."""
        return {**vars(self), "rows": [row.as_json() for row in self.rows]}


def lines(comparison: Comparison) -> list[str]:
    """Write the table for a terminal, and what there is to know of it."""
    shown = [_HEAD, *(_cells(row) for row in comparison.rows if not row.reason)]
    out = table(shown, right=range(1, len(_HEAD)))
    out += [f"{title}: {reason}" for title, reason in comparison.without()]
    out.append(f"damage by the metric {comparison.metric}, 0 is none, on {comparison.inputs}")
    return out


def write_page(path: Path, comparison: Comparison) -> None:
    """Write one page that needs nothing but itself."""
    measure = "damage" if comparison.metric == "auto" else f"damage by {comparison.metric}"
    without = comparison.without()
    drawing = inline(frontier(comparison.points(), measure=measure))
    sections = [
        ("Frontier", f"{drawing}<p class=sub>On {html.escape(comparison.inputs)}.</p>"),
        ("All files", _table(_HEAD, [_cells(row) for row in comparison.rows if not row.reason])),
    ]
    if without:
        sections.append(("Not compared", _table(("method", "reason"), without)))
    subtitle = f"{size_text(comparison.weight_bytes)} of weights"
    with atomic_write(path) as file:
        file.write(page(f"{comparison.model} by other methods", subtitle, sections).encode())


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.title,
        f"{row.size:,}",
        f"{row.ratio:.2f}x",
        f"{row.damage:.4g}" if math.isfinite(row.damage) else "other shapes, or NaN",
        "" if row.agreement is None else f"{100 * row.agreement:.1f} %",
        "" if row.cosine is None else f"{row.cosine:.5f}",
        f"{row.seconds:.1f}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numeric = len(head) > 2
    css = ["", *(" class=n" if numeric else "" for _ in head[1:])]
    shown = "".join(
        "<tr>" + "".join(f"<td{kind}>{html.escape(cell)}" for kind, cell in zip(css, row, strict=True)) + "</tr>"
        for row in rows
    )
    top = "".join(f"<th{kind}>{html.escape(cell)}" for kind, cell in zip(css, head, strict=True))
    return f"<div class=scroll><table><tr>{top}</tr>{shown}</table></div>"
