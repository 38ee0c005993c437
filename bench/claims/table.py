"""The table for people: a row for each goal, its controls below it, and what is open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .goals import Goal
from .kept import Row

HEADER = (
    "| model | bytes | ratio | quality | reference | kept [95 %] | agreement | assembly | reached |",
    "|---|--:|--:|--:|--:|---|--:|--:|---|",
)


def table(found: Sequence[tuple[Goal, Row | None]]) -> list[str]:
    """Return the lines: rows of kept seeds with their controls, then goals that no seed is kept for."""
    kept = [(goal, row) for goal, row in found if row is not None]
    missing = [goal for goal, row in found if row is None]
    lines = list(HEADER) if kept else ["No seeds are kept yet: nothing of the table is shown to hold."]
    for goal, row in kept:
        lines.append(_row(goal, row))
        lines += [_control(goal, control) for control in row.kept_beside.get("controls", [])]
    for goal, row in kept:
        lines += [f"not reached, {goal.title}: {miss}" for miss in row.misses]
        lines += _ahead(goal, row)
    lines += [f"open, {goal.title}: {goal.text()}; no seed is kept yet" for goal in missing]
    return lines


def _row(goal: Goal, row: Row) -> str:
    agreement = "-" if row.agreement is None else f"{row.agreement:.4f}"
    cells = [
        goal.title, f"{row.bytes:,}", f"{row.ratio:,.1f}x", _quality(goal, row.quality), _quality(goal, row.reference),
        _interval(row.kept.middle, row.kept.low, row.kept.high), agreement, f"{row.assembly_s:.2f} s",
        "no" if row.misses else "yes",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _control(goal: Goal, control: dict[str, Any]) -> str:
    note = f": {control['note']}" if control.get("note") else ""
    size = f"{control['bytes']:,}" if control.get("bytes") else "-"
    return f"| - {control['label']}{note} | {size} | | | | {_interval(*control['kept'])} | | | |"


def _ahead(goal: Goal, row: Row) -> list[str]:
    """Say which controls do as well as the seed at its bytes or fewer: the page's first paragraph must."""
    lines = []
    for control in row.kept_beside.get("controls", []):
        if not control.get("bytes") or control["bytes"] > row.bytes:
            continue
        middle = control["kept"][0]
        if middle >= row.kept.middle if goal.measure == "accuracy" else middle <= row.kept.middle:
            says = f"{control['label']} keeps as much in {control['bytes']:,} bytes"
            lines.append(f"no better than a control, {goal.title}: {says}")
    return lines


def _quality(goal: Goal, value: float) -> str:
    return f"{value:.4f}" if goal.measure == "accuracy" else f"{value:.2f}"


def _interval(middle: float, low: float, high: float) -> str:
    return f"{middle:.4f} [{low:.4f}, {high:.4f}]"
