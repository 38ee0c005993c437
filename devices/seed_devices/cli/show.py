"""What people see: the step that is under way, a line per device, a table, or one JSON object."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_runtime.cli.entrypoint import explain
from seed_runtime.cli.terminal import print_json, table

SHORT: Final = 12
"""Digits of a digest that people see."""
_INTERVAL_S: Final = 0.1

T = TypeVar("T")


class Steps:
    """The step of one device, or how many devices are done, on a terminal only."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total, self._done, self._shown, self._next = total, 0, "", 0.0
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def of(self, target: Target) -> Callable[[str, int, int], None] | None:
        """Progress of this device, None where nobody would see it."""
        if not self._live or self._total > 1:
            return None

        def show(step: str, done: int, total: int) -> None:
            now = time.monotonic()
            if total and done < total and now < self._next:
                return
            self._next = now + _INTERVAL_S
            self._put(f"{target}: {step} {100 * min(done, total) // total:3d} %" if total else f"{target}: {step}")

        return show

    def ended(self, outcome: Outcome[T], line: str) -> None:
        """A line for a device that is done, where there are several."""
        self._done += 1
        if self._total > 1 and not self._quiet:
            self.clear()
            print(f"[{self._done}/{self._total}] {outcome.target}: {line}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            self._put("")

    def _put(self, line: str) -> None:
        # Spaces rather than an escape sequence, as seed-run does.
        blank = " " * max(0, len(self._shown) - len(line))
        print(f"\r{line}{blank}", end="" if line else "\r", file=sys.stderr, flush=True)
        self._shown = line


def print_hosts(outcomes: Sequence[Outcome[T]], values: Callable[[T], dict[str, Any]]) -> None:
    """All devices as one JSON object."""
    print_json({"hosts": [_as_json(outcome, values) for outcome in outcomes]})


def print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    if rows:
        print("\n".join(table([heads, *rows], right)))


def reason(outcome: Outcome[T]) -> str:
    """Why it failed, without the device's name, which stands before it already."""
    assert outcome.error is not None
    code, text = explain(outcome.error)
    return f"{text.removeprefix(f'{outcome.target.host}: ')} (exit {code})"


def print_failures(outcomes: Sequence[Outcome[T]]) -> None:
    """The devices that failed and why; of one alone the last line will say it."""
    if len(outcomes) > 1:
        for outcome in outcomes:
            if outcome.error is not None:
                print(f"{outcome.target}: {reason(outcome)}", file=sys.stderr)


def _as_json(outcome: Outcome[T], values: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"host": outcome.target.host, "name": outcome.target.name, "ok": outcome.error is None}
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
