"""Progress on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class Bar:
    """One line that shows the step and how far it is."""

    def __init__(self, quiet: bool) -> None:
        self._bar: tqdm | None = None
        self._step = ""
        self._disabled = quiet or not sys.stderr.isatty()

    def step(self, step: str, done: int, total: int) -> None:
        """`total` 0: how much there is to do isn't known."""
        if self._disabled:
            return
        if step != self._step or self._bar is None:
            self._end()
            self._bar = tqdm(desc=step, total=total or None, unit="", unit_scale=True, leave=False, file=sys.stderr)
            self._step = step
        self._bar.total = total or None
        self._bar.n = done
        self._bar.refresh()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
