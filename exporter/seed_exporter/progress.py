"""Show progress on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class ProgressBar:
    """One line on stderr that shows the phase and how much of it is done."""

    def __init__(self, quiet: bool) -> None:
        self._bar: tqdm | None = None
        self._phase, self._quiet = "", quiet
        self._disabled = quiet or not sys.stderr.isatty()

    def update(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `phase` are done; `total` is 0 where it isn't known.

        What a phase has reached may stand behind a colon: `heal: 26.7 KB`.
        """
        if self._disabled:
            return
        phase, _, reached = phase.partition(": ")
        if phase != self._phase or self._bar is None:
            self._close()
            self._bar = tqdm(desc=phase, total=total or None, unit="", unit_scale=True, leave=False, file=sys.stderr)
            self._phase = phase
        self._bar.total = total or None
        self._bar.set_postfix_str(reached, refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def say(self, line: str) -> None:
        """Write a line above the bar; also where there is no terminal, unless nothing is to be shown."""
        if not self._quiet:
            tqdm.write(line, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
