"""Print results for people: the current phase, a line per device, a table, or one JSON object for programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import Progress
from seed_runtime.cli.entrypoint import explain
from seed_runtime.cli.terminal import print_json, table
from seed_runtime.units import size_text

SHORT: Final = 12
"""Number of digits of a digest that are printed."""
_INTERVAL_S: Final = 0.1
"""Seconds between two updates of the progress line."""

T = TypeVar("T")


class ProgressLine:
    """The phase of one device, or how many of several devices are done, on stderr.

    Args:
        total: how many devices there are.
        quiet: print nothing.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total, self._done, self._shown, self._next_s = total, 0, "", 0.0
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def progress_of(self, target: Target) -> Progress | None:
        """Return the progress callback of a device; None where nobody would see it."""
        if not self._live or self._total > 1:
            return None

        def show(phase: str, done: int, total: int) -> None:
            now = time.monotonic()
            if total and done < total and now < self._next_s:
                return
            self._next_s = now + _INTERVAL_S
            self._put(f"{target}: {phase_text(phase, done, total)}")

        return show

    def print_done(self, outcome: Outcome[T], line: str) -> None:
        """Print a line for a device that is done, where there are several."""
        self._done += 1
        if self._total > 1 and not self._quiet:
            self.clear()
            print(f"[{self._done}/{self._total}] {outcome.target}: {line}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._shown:
            self._put("")

    def _put(self, line: str) -> None:
        # Spaces rather than an escape sequence, as seed-run does.
        blank = " " * max(0, len(self._shown) - len(line))
        print(f"\r{line}{blank}", end="" if line else "\r", file=sys.stderr, flush=True)
        self._shown = line


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
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def phase_text(phase: str, done: int, total: int) -> str:
    """Return how far a phase is: bytes of a transfer, per cent of everything else."""
    if not total:
        return phase
    done = min(done, total)
    if phase == "transfer":
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
    if outcome.error is None and outcome.value is not None:
        found |= values(outcome.value)
    if outcome.error is not None:
        code, text = explain(outcome.error)
        found |= {
            "exit": code,
            "error": text,
            "kind": getattr(outcome.error, "kind", "") or type(outcome.error).__name__,
        }
    return {**found, "seconds": round(outcome.seconds, 3)} if "seconds" not in found else found
