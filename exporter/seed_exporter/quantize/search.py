"""Finds the coarseness at which plans keep what an export is for: a size, a quality, or the default's line."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from seed_exporter.codecs.base import Plan
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.quality_search import CLOSE, fit_quality
from seed_exporter.quantize.rate import FINEST, RateModel
from seed_exporter.quantize.size_search import OperatingPoint, fit
from seed_exporter.quantize.trail import Point

PlansAt = Callable[[float], dict[str, Plan]]
"""Plans all weights at a coarseness."""

_START: Final = 1 / 8
"""Coarseness at which a search for a quality begins: some five bits a weight."""
_ROUGH: Final = 1.5
"""Factor between both sides of the line at which a rough search ends."""
_KEPT: Final = 3
"""Plans that are kept: they are asked for their size and their damage."""
_WORK: Final = 8
"""Seeds that one search tries, about."""


class Search:
    """Searches for one evaluator's goal, over plans that differ in their coarseness alone."""

    def __init__(self, evaluator: Evaluator, model: RateModel, largest: int, kept: int) -> None:
        """Prepare a search.

        Args:
            evaluator: has the goal.
            model: estimates sizes.
            largest: most bytes of the seed: what was asked for, or the default's largest.
            kept: bytes of all but the matrices.
        """
        self._evaluator, self._model, self._largest = evaluator, model, largest
        self._by_size = model.coarseness_for(max(largest - kept, 1))
        self._line = evaluator.line_to_keep
        self._missed = False

    def fit(self, plans_at: PlansAt, start: float | None = None) -> OperatingPoint:
        """Find the coarseness: the finest that keeps a size, the coarsest that keeps a line.

        Args:
            plans_at: plans all weights at a coarseness.
            start: a coarseness near it, where one is known.
        """
        self._evaluator.trail.plan_work(_WORK)
        plans_at = lru_cache(maxsize=_KEPT)(plans_at)
        if self._line is None:
            return self._fit_size(plans_at, start)
        if self._line.required:
            return self._fit_line(plans_at, start or _START)
        begin = self._by_size if self._missed else start or self._by_size
        point = self._fit_line(plans_at, begin, self._by_size)
        if point.met and self._evaluator.size_of(plans_at(point.coarseness)) <= self._largest:
            return point
        # The line asks for more than the default's largest size, nearly; the next plans are likely to miss it as well.
        nearby = start if self._missed else None
        self._missed = True
        return OperatingPoint(self._fit_size(plans_at, nearby or self._by_size).coarseness, met=True, capped=True)

    def roughly(self, plans_at: PlansAt) -> float:
        """Return a coarseness near the one that `fit` finds, where plans differ in the weights' unit steps."""
        if self._line is None:
            return self._by_size
        start, finest = (_START, FINEST) if self._line.required else (self._by_size, self._by_size)
        return self._fit_line(plans_at, start, finest, _ROUGH).coarseness

    def keeps(self, plans: dict[str, Plan]) -> bool:
        """Return whether plans keep the size or the line that is searched for."""
        evaluator = self._evaluator
        if (self._line is None or not self._line.required) and evaluator.size_of(plans) > self._largest:
            return False
        return self._line is None or self._excess(plans) <= 1

    def replaces(self, plans: dict[str, Plan], others: dict[str, Plan]) -> bool:
        """Return whether smaller plans of the same squared error do no more damage than the line allows, or others do.

        Equal squared errors are not always equal damage.
        """
        if self._line is None:
            return True
        return self._excess(plans) <= max(1.0, self._excess(others))

    def _fit_size(self, plans_at: PlansAt, start: float | None) -> OperatingPoint:
        evaluator = self._evaluator

        def size_at(coarseness: float) -> int:
            evaluator.trail.advance()
            plans = plans_at(coarseness)
            size = evaluator.size_of(plans)
            if self._line is None:
                evaluator.trail.offer(plans, size <= self._largest, (size if size <= self._largest else -size,))
            return size

        return fit(self._model, self._largest, size_at, start, self._stop)

    def _fit_line(
        self, plans_at: PlansAt, start: float, finest: float = FINEST, close: float = CLOSE
    ) -> OperatingPoint:
        return fit_quality(lambda coarseness: self._excess(plans_at(coarseness)), start, finest, close, self._stop)

    def _excess(self, plans: dict[str, Plan]) -> float:
        """Measure how many times plans exceed the line, and leave what was tried in the trail."""
        evaluator, line = self._evaluator, self._line
        assert line is not None
        evaluator.trail.advance()
        outputs = evaluator.outputs_with(plans, line.mixed.feeds)
        excess = line.excess(evaluator.expected, outputs, evaluator.feeds)
        size = evaluator.size_of(plans)
        damage = evaluator.metric.damage(evaluator.expected, outputs[: len(evaluator.expected)], evaluator.feeds)
        evaluator.trail.points.append(Point(size, damage))
        merit = (-float(size),) if excess <= 1 else (-excess, -float(size))
        evaluator.trail.offer(plans, excess <= 1, merit)
        return excess

    def _stop(self) -> bool:
        return self._evaluator.trail.expired
