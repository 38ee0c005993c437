"""The course of a run: its clock, what is told of it, and the best values so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from seed_runtime.backends import Array
from seed_runtime.memory.process import baseline
from seed_runtime.tune.records import Progress, Score, Settings


class Course:
    """How far a run is, and when it has to end.

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

    def tell(self, step: int, steps: int, loss: float = math.nan) -> None:
        """Tell how far the tier is."""
        left = self.seconds / max(1, step) * (steps - step)
        left = min(left, self._end - time.monotonic())
        score = math.nan if self.best is None else self.best.value
        told = Progress(self._tier, step, steps, loss, score, baseline().resident, max(0.0, left))
        self._settings.progress(told)


class Best:
    """The best values of some tensors that a tier has seen, and their score.

    Args:
        score: of the values that the tier began with.
    """

    def __init__(self, score: Score) -> None:
        self.score, self.is_better = score, False
        self._values = dict[str, Array]()

    def settle(self, score: Score, values: Mapping[str, Array]) -> None:
        """End with other values, none for those that the tier began with, and their score on what was held out."""
        self.score, self.is_better, self._values = score, bool(values), dict(values)

    @property
    def values(self) -> Mapping[str, Array]:
        """The values; none while nothing was better than what the tier began with."""
        return self._values if self.is_better else {}

    def reserve(self, values: Mapping[str, Array]) -> None:
        """Take the memory that values will need."""
        self._values = {name: value.copy() for name, value in values.items()}

    def offer(self, score: Score, values: Mapping[str, Array]) -> bool:
        """Copy values if they are better; return whether they were."""
        if not score > self.score:
            return False
        self.score, self.is_better = score, True
        if self._values.keys() != values.keys():
            self.reserve(values)
        for name, value in values.items():
            self._values[name][...] = value
        return True
