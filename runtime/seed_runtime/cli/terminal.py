"""Output for people: notes and progress on stderr beside the results, and results as text."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from seed_runtime.assembly.assemble import Progress
from seed_runtime.format.primitives import printable

_INTERVAL_S: Final = 0.1
_SHOWN: Final = 80
"""Characters that are shown of a long text."""


class Terminal:
    """Prints notes and progress to stderr. Progress is only for a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = ""
        self._next = 0.0
        self._live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def note(self, line: str) -> None:
        """Print a line that is no result to stderr."""
        if not self._quiet:
            self.clear()
            print("seed-run:", line, file=sys.stderr)

    def progress(self, what: str) -> Progress | None:
        """Return a function that shows the progress of `what`, or None where nobody would see it."""
        if not self._live:
            return None

        def show(done: int, total: int) -> None:
            now = time.monotonic()
            if now < self._next and done < total:
                return
            self._next = now + _INTERVAL_S
            self._shown = f"{what} {100 * done // max(total, 1):3d} %"
            print(f"\r{self._shown}", end="", file=sys.stderr, flush=True)
            if done >= total:
                self.clear()

        return show

    def progress_line(self) -> Callable[[str], None] | None:
        """Return a function that shows a line of progress in place of the one before, or None where nobody sees it."""
        if not self._live:
            return None

        def show(line: str) -> None:
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + _INTERVAL_S
            self.clear()
            self._shown = line
            print(f"\r{line}", end="", file=sys.stderr, flush=True)

        return show

    def clear(self) -> None:
        """Remove the progress from the line; an error or a result may follow."""
        if self._shown:
            print(f"\r{' ' * len(self._shown)}\r", end="", file=sys.stderr, flush=True)
            self._shown = ""


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object; infinities and NaN, for which JSON has no numbers, become null."""
    print(json.dumps(_plain(values), allow_nan=False))


def heading(text: str) -> str:
    """Make a text bold on a terminal, unless NO_COLOR is set."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\x1b[1m{text}\x1b[0m"
    return text


def escaped(text: str) -> str:
    """Write a text of any kind on one line: what can't be printed is escaped."""
    if printable(text):
        return text
    return "".join(char if printable(char) else char.encode("unicode_escape").decode() for char in text)


def one_line(text: str) -> str:
    """Write a text of any kind on one line: what can't be printed is escaped, and long ones are cut."""
    shown = escaped(text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown}... ({len(text):,} characters)"


def table(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Align rows in columns two spaces apart; those numbered in `right` are aligned to the right."""
    rows = list(rows)
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(rows[0]) if rows else 0)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
