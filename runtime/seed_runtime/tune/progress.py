"""The progress of a run: its clock, and reports of how far it is."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from seed_runtime.memory.process import baseline
from seed_runtime.tune.records import Progress, Score, Settings


class TimeUpError(Exception):
    """The time limit ended a run of the model. Raised once a fine-tune, so that the best values can be scored still."""


class RunProgress:
    """The clock of a run, which reports how far it is.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        limit, now = settings.time_limit, time.monotonic()
        self._end = math.inf if limit is None else limit + (now if settings.started is None else settings.started)
        self._begun, self._tier = now, ""
        self.first_step = 0
        """The step at which this process began the tier: those before it took another one's time."""
        self._is_ended = self._is_suspended = False
        self.best: Score | None = None
        """The best score so far; None before the first one."""

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def watch(self) -> None:
        """End what the backend runs, the first time that it is called after the time is up.

        Raises:
            TimeUpError: that is now.
        """
        self._settings.watch()
        if self.is_over and not self._is_ended and not self._is_suspended:
            self._is_ended = True
            raise TimeUpError

    @contextlib.contextmanager
    def unlimited(self) -> Iterator[None]:
        """Let what the backend runs in the block take its time."""
        self._is_suspended = True
        try:
            yield
        finally:
            self._is_suspended = False

    def begin(self, tier: str) -> None:
        """Begin a tier."""
        self._begun, self._tier, self.first_step = time.monotonic(), tier, 0

    @property
    def seconds(self) -> float:
        """Time since the tier began [s]."""
        return time.monotonic() - self._begun

    def report(self, step: int, steps: int, loss: float = math.nan) -> None:
        """Report how far the tier is."""
        left = self.seconds / max(1, step - self.first_step) * (steps - step)
        left = min(left, self._end - time.monotonic())
        score = math.nan if self.best is None else self.best.value
        progress = Progress(self._tier, step, steps, loss, score, baseline().resident, max(0.0, left))
        self._settings.progress(progress)
