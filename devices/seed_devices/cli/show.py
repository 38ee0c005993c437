"""Print results: a table or a line per device for people, or one JSON object for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from seed_devices.fleet.parallel import Outcome
from seed_devices.push.job import TRANSFER
from seed_runtime.cli.entrypoint import explain
from seed_runtime.cli.terminal import print_json, table
from seed_runtime.units import size_text

SHORT: Final = 12
"""Number of digits of a digest that are printed."""

T = TypeVar("T")


def print_hosts(outcomes: Sequence[Outcome[T]], values: Callable[[T], dict[str, Any]], **totals: Any) -> None:
    """Print all devices as one JSON object.

    Args:
        outcomes: of the devices.
        values: makes the fields of a device that didn't fail.
        totals: fields of the object beside "hosts".
    """
    print_json({"hosts": [_as_json(outcome, values) for outcome in outcomes], **totals})


def duration_text(seconds: float) -> str:
    """Write a time for people, such as "12 s", "3 min 51 s" or "2 h 5 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def phase_text(phase: str, done: int, total: int) -> str:
    """Return how far a phase is: bytes of a transfer, per cent of everything else."""
    if not total:
        return phase
    done = min(done, total)
    if phase == TRANSFER:
        return f"{phase} {size_text(done)} of {size_text(total)}"
    return f"{phase} {100 * done // total:3d} %"


def print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table, unless it has no rows; the columns `right` are aligned to the right."""
    if rows:
        print("\n".join(table([heads, *rows], right)))


def reason(outcome: Outcome[T]) -> str:
    """Return why a device failed, without its name: it is printed before this already."""
    assert outcome.error is not None
    code, text = explain(outcome.error)
    return f"{text.removeprefix(f'{outcome.target.device}: ')} (exit {code})"


def print_failures(outcomes: Sequence[Outcome[T]]) -> None:
    """Print which of several devices failed and why; the error of a single device is printed at the end."""
    if len(outcomes) > 1:
        for outcome in outcomes:
            if outcome.error is not None:
                print(f"{outcome.target}: {reason(outcome)}", file=sys.stderr)


def _as_json(outcome: Outcome[T], values: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"host": outcome.target.device, "name": outcome.target.name, "ok": outcome.error is None}
    if outcome.value is not None:
        found |= values(outcome.value)
    if outcome.error is not None:
        code, text = explain(outcome.error)
        found |= {
            "exit": code,
            "error": text,
            "kind": getattr(outcome.error, "kind", "") or type(outcome.error).__name__,
        }
    return {**found, "seconds": round(outcome.seconds, 3)} if "seconds" not in found else found
