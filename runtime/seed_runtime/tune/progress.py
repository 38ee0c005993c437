"""The progress of a run: its clock, and reports of how far it is."""

from __future__ import annotations

import math
import time

from seed_runtime.memory.process import baseline
from seed_runtime.tune.records import Progress, Score, Settings


class RunProgress:
    """The clock of a run, which reports how far it is.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        limit = settings.time_limit
        self._end = math.inf if limit is None else time.monotonic() + limit
        self._begun, self._tier = time.monotonic(), ""
        self.best: Score | None = None
        """The best score so far; None before the first one."""

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def begin(self, tier: str) -> None:
        """Begin a tier."""
        self._begun, self._tier = time.monotonic(), tier

    @property
    def seconds(self) -> float:
        """Time since the tier began [s]."""
        return time.monotonic() - self._begun

    def report(self, step: int, steps: int, loss: float = math.nan) -> None:
        """Report how far the tier is."""
        left = self.seconds / max(1, step) * (steps - step)
        left = min(left, self._end - time.monotonic())
        score = math.nan if self.best is None else self.best.value
        progress = Progress(self._tier, step, steps, loss, score, baseline().resident, max(0.0, left))
        self._settings.progress(progress)
