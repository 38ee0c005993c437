"""The trail of a search: what was tried, the best so far, and whether there is time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seed_exporter.codecs.base import Plan
from seed_exporter.heal.looks import Look


@dataclass(frozen=True)
class Point:
    """One seed that was tried.

    Attributes:
        bytes: size of the whole file, within 0.1 % [B].
        damage: of its outputs, by the export's metric.
    """

    bytes: int
    damage: float


class Trail:
    """What a search leaves behind for the report, and for a user who ends it early. Not shared between threads."""

    def __init__(self, progress: Callable[[int, int], None] = lambda done, total: None, deadline: float | None = None):
        """Begin a search.

        Args:
            progress: called with the work that is done and all of it, as far as it is known.
            deadline: when to take the best so far, on `time.monotonic`'s clock; None for no limit.
        """
        self.points: list[Point] = []
        self.looks: list[Look] = []
        """What healing was seen to reach."""
        self.damages: dict[str, float] = {}
        """Damage that each weight does alone, at the step at which it was probed."""
        self.best: tuple[Mapping[str, Plan], bool] | None = None
        """The best plans so far, and whether they keep the goal."""
        self._rank: tuple[float, ...] = ()
        self._progress, self._deadline = progress, deadline
        self._done = self._total = 0
        self.expired_in_search = False
        """True if the search was asked to stop before it was done."""
        self.trained = False
        """True if its plans were trained, which isn't done again for one percent of the bytes."""

    def plan_work(self, count: int) -> None:
        """Add to the work that is to be done."""
        self._total += count
        self._progress(self._done, max(self._total, self._done))

    def advance(self, count: int = 1) -> None:
        """Report work that was done."""
        self._done += count
        self._progress(self._done, max(self._total, self._done))

    @property
    def expired(self) -> bool:
        """True once the time limit has passed."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.expired_in_search = True
        return self.expired_in_search

    def clock(self, parts: int = 1) -> Callable[[], float] | None:
        """Return a function that gives the share of a part of the time left now that has passed; None without a limit.

        Args:
            parts: equal parts into which the time left is divided.
        """
        if self._deadline is None:
            return None
        start = time.monotonic()
        length = max(self._deadline - start, 1e-9) / parts
        return lambda: (time.monotonic() - start) / length

    def begin(self) -> None:
        """Forget the best so far: what follows has another goal."""
        self.best, self._rank = None, ()

    def offer(self, plans: Mapping[str, Plan], met: bool, merit: tuple[float, ...]) -> None:
        """Keep plans if they are better than all before.

        Args:
            plans: of all weights.
            met: True if they keep the goal; such plans are better than those that don't.
            merit: orders plans that are alike in this, larger is better.
        """
        rank = (float(met), *merit)
        if self.best is None or rank > self._rank:
            self.best, self._rank = (plans, met), rank
