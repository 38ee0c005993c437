"""Show on a terminal what devices are at: a line for each one that is worked on, and one for all of them.

Nothing of it is printed where stderr is no terminal. The lines are drawn over each other by the sequences that every
terminal but a "dumb" one knows (ECMA-48: cursor up, erase in line, erase in display).
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TextIO, TypeVar

from seed_devices.cli import show
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.push.job import TRANSFER
from seed_devices.remote.agent_client import Progress
from seed_devices.ssh.connection import Connection
from seed_runtime.units import size_text

_INTERVAL_S: Final = 0.1
"""Seconds between two drawings."""
_UP, _ERASE_LINE, _ERASE_BELOW = "\x1b[{}A", "\x1b[K", "\x1b[J"

T = TypeVar("T")


class LiveProgress:
    """The lines of all devices that are worked on. Callbacks may come from any thread.

    Args:
        total: how many devices there are.
        quiet: print nothing at all.
        rate: the largest rate of all transfers together in bytes per second, for the time that is left.
        stream: the terminal; stderr if None.
        summary: returns the last line, in place of one that counts devices.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool,
        rate: int | None = None,
        stream: TextIO | None = None,
        summary: Callable[[], str] | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        self._own_summary = summary
        self._total, self._rate, self._quiet = total, rate, quiet
        self._live = not quiet and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._phases: dict[Target, tuple[str, int, int, str]] = {}
        self._done = self._failed = self._drawn = 0
        self._next_s = 0.0

    def watch(self, work: Callable[[Target, Connection], T]) -> Callable[[Target, Connection], T]:
        """Return `work` that is shown from its beginning on; `end` ends that."""

        def watched(target: Target, connection: Connection) -> T:
            self.put(target, "connect", 0, 0)
            return work(target, connection)

        return watched

    def progress_of(self, target: Target) -> Progress | None:
        """Return the progress callback of a device; None where nobody would see it."""
        if not self._live:
            return None
        return lambda phase, done, total: self.put(target, phase, done, total)

    def put(self, target: Target, phase: str, done: int, total: int, text: str = "") -> None:
        """Show how far a device is; reports of one phase that follow each other closely are drawn as one.

        Args:
            target: the device.
            phase: name of the phase.
            done: how much of it is done.
            total: all of it; 0 if that isn't known.
            text: what is shown in place of the phase and how far it is.
        """
        if not self._live:
            return
        with self._lock:
            before = self._phases.get(target)
            self._phases[target] = (phase, done, total, text)
            now = time.monotonic()
            if before is not None and before[0] == phase and done < total and now < self._next_s:
                return
            self._next_s = now + _INTERVAL_S
            self._draw()

    def end(self, outcome: Outcome[T], line: str | None = None) -> None:
        """Remove the line of a device that is done; where there are several, print `line` for good."""
        with self._lock:
            self._done += 1
            self._failed += outcome.error is not None
            self._phases.pop(outcome.target, None)
            self._erase()
            if line is not None and self._total > 1 and not self._quiet:
                print(f"[{self._done}/{self._total}] {outcome.target}: {line}", file=self._stream, flush=True)
            self._draw()

    def clear(self) -> None:
        """Remove all lines from the terminal."""
        with self._lock:
            self._phases.clear()
            self._erase()
            self._live = False

    def _draw(self) -> None:
        """Draw all lines over those that stand there. The lock is held."""
        if not self._live or not self._phases:
            return
        width, height = shutil.get_terminal_size()
        lines = self._lines(max(1, height - 2))
        start = "\r" + (_UP.format(self._drawn - 1) if self._drawn > 1 else "")
        text = "\n".join(line[: max(1, width - 1)] + _ERASE_LINE for line in lines)
        print(f"{start}{text}{_ERASE_BELOW}", end="", file=self._stream, flush=True)
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            start = "\r" + (_UP.format(self._drawn - 1) if self._drawn > 1 else "")
            print(f"{start}{_ERASE_BELOW}", end="", file=self._stream, flush=True)
            self._drawn = 0

    def _lines(self, most: int) -> list[str]:
        lines = [f"{target}: {self._text(phase)}" for target, phase in self._phases.items()]
        if self._own_summary is not None:
            return [*lines[:most], self._own_summary()]
        if self._total == 1:
            return lines
        return [*lines[:most], self._summary(len(lines), max(0, len(lines) - most))]

    def _text(self, phase: tuple[str, int, int, str]) -> str:
        name, done, total, text = phase
        if text:
            return text
        left = ""
        # With several devices the rate is shared, so that the summary knows the time.
        if self._rate and self._total == 1 and name == TRANSFER and total:
            left = f", {show.duration_text((total - min(done, total)) / self._rate)} left"
        return f"{show.phase_text(name, done, total)}{left}"

    def _summary(self, active: int, hidden: int) -> str:
        parts = [f"{self._done} of {self._total} done"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{active} at work" + (f", {hidden} of them not shown" if hidden else "")]
        sizes = [
            (min(done, total), total) for name, done, total, _ in self._phases.values() if name == TRANSFER and total
        ]
        if sizes:
            done, total = (sum(column) for column in zip(*sizes, strict=True))
            parts.append(f"sending {size_text(done)} of {size_text(total)}")
            parts += [f"{show.duration_text((total - done) / self._rate)} left for these"] if self._rate else []
        return ", ".join(parts)
