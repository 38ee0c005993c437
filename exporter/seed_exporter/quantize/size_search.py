"""Finds the coarseness at which a seed has the size that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from seed_exporter.quantize.rate import COARSEST, FINEST, RateModel

_TRIES: Final = 8
"""Most sizes that are asked for before the best so far is taken."""
_STRIDE: Final = 1.25
"""Factor by which the coarseness moves where the estimate leads nowhere: a third of a bit per weight."""
_CLOSE: Final = 0.992
"""Share of the goal from which on a seed is large enough: the rest would take another round."""


@dataclass(frozen=True)
class OperatingPoint:
    """A coarseness, and whether its plans keep the goal.

    Attributes:
        coarseness: quantization step, in unit steps.
        met: True if the seed has at most the bytes asked for, or keeps the line.
        capped: True if the line asks for more than the default's largest size, which was taken in its place.
    """

    coarseness: float
    met: bool
    capped: bool = False


def fit(
    model: RateModel,
    goal: int,
    size_at: Callable[[float], int],
    start: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> OperatingPoint:
    """Find the finest coarseness, nearly, at which `size_at` gives at most `goal` bytes.

    Args:
        model: says where to look.
        goal: most bytes of the seed.
        size_at: computes the seed's bytes at a coarseness; called some four times.
        start: coarseness to begin with; by default the one that `model` gives.
        stop: returns True when time is up, so that the best so far is taken.
    """
    coarseness = start or model.coarseness_for(goal)
    too_fine, fits, best_size = 0.0, math.inf, 0
    known: list[tuple[float, int]] = []
    for _ in range(_TRIES):
        size = size_at(coarseness)
        if size > goal:
            too_fine = max(too_fine, coarseness)
        elif size > best_size:
            fits, best_size = coarseness, size
        if goal * _CLOSE <= best_size or too_fine == COARSEST or fits == FINEST or (best_size and stop()):
            break
        known.append((math.log2(coarseness), size))
        coarseness = _next(model, known, goal * (1 + _CLOSE) / 2)
        if not too_fine < coarseness < fits:
            coarseness = _between(too_fine, fits)
    while best_size == 0 and too_fine < COARSEST:
        too_fine = _between(too_fine, fits)
        if size_at(too_fine) <= goal:
            return OperatingPoint(too_fine, True)
    return OperatingPoint(fits, True) if best_size else OperatingPoint(COARSEST, False)


def _next(model: RateModel, known: list[tuple[float, int]], goal: float) -> float:
    """Predict where the size is `goal`: by the estimate at first, then on the line through the two nearest sizes."""
    (log, size), *others = sorted(known, key=lambda point: abs(point[1] - goal))
    if others and others[0][1] != size:
        wanted = 2 ** (log + (goal - size) * (others[0][0] - log) / (others[0][1] - size))
    else:
        # What the estimate left out (graph, vectors, tables) is taken off the goal; what contexts saved is added.
        wanted = model.coarseness_for(max(model.bytes_at(2**log) + goal - size, 1))
    return min(max(wanted, FINEST), COARSEST)


def _between(too_fine: float, fits: float) -> float:
    """Choose a coarseness between a size that is too large and one that fits; 0 and infinity stand for neither."""
    if not too_fine:
        return max(fits / _STRIDE, FINEST)
    return min(too_fine * _STRIDE, COARSEST) if fits == math.inf else (too_fine * fits) ** 0.5
