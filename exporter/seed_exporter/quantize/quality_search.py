"""Finds the coarsest plans whose damage stays under a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from seed_exporter.quantize.rate import COARSEST, FINEST
from seed_exporter.quantize.size_search import OperatingPoint

_TRIES: Final = 14
"""Most coarsenesses that are tried."""
CLOSE: Final = 1.02
"""Factor between a coarseness that keeps the line and one that doesn't at which the search ends: .03 bit a weight."""
_STRIDE_MAX: Final = 4.0
"""Largest factor by which the coarseness moves at once: two bits a weight."""
_EXCESS_LEAST: Final = 1 / 64
"""Excess below which damage says nothing any more of how much coarser one may go, such as that of equal decisions."""
_MARGIN: Final = 0.9
"""Share of the line that is aimed at: damage is no smooth function of the coarseness."""


def fit_quality(
    excess_at: Callable[[float], float],
    start: float,
    finest: float = FINEST,
    close: float = CLOSE,
    stop: Callable[[], bool] = lambda: False,
) -> OperatingPoint:
    """Find the coarsest coarseness, nearly, whose damage is at most its limit.

    Damage grows with the square of the step: from that the search goes on until it has one coarseness on each side of
    the line, and then between the two, on the line through their logarithms.

    Args:
        excess_at: computes damage over its limit at a coarseness, 1 on the line.
        start: coarseness to begin with.
        finest: coarseness below which nothing is tried.
        close: factor between both sides at which the search ends.
        stop: returns True when time is up, so that the best so far is taken.
    """
    good = bad = 0.0
    good_excess = bad_excess = 0.0
    coarseness = min(max(start, finest), COARSEST)
    for _ in range(_TRIES):
        excess = max(excess_at(coarseness), _EXCESS_LEAST)
        if excess <= 1:
            good, good_excess = coarseness, excess
        else:
            bad, bad_excess = coarseness, excess
        if stop() or good >= COARSEST or (bad and bad <= finest) or (good and bad and bad <= close * good):
            break
        if good and bad:
            coarseness = _between(good, good_excess, bad, bad_excess)
        else:
            stride = math.sqrt(_MARGIN / excess) if math.isfinite(excess) else 1 / _STRIDE_MAX
            # Just under the line as well, a step must lead across it, or the search would creep.
            least = close**0.75
            stride = max(stride, least) if excess <= 1 else min(stride, 1 / least)
            coarseness *= min(max(stride, 1 / _STRIDE_MAX), _STRIDE_MAX)
            coarseness = min(max(coarseness, finest), COARSEST)
    return OperatingPoint(good, True) if good else OperatingPoint(bad, False)


def _between(good: float, good_excess: float, bad: float, bad_excess: float) -> float:
    """Predict the coarseness on the line, not too near to either side."""
    share = 0.5
    if math.isfinite(bad_excess):
        share = math.log(good_excess) / (math.log(good_excess) - math.log(bad_excess)) if good_excess < 1 else 0.0
    return float(good * (bad / good) ** min(max(share, 0.2), 0.8))
