"""Damping, pivots and steps of error feedback, chosen on inputs that it was not made for.

Pivots say how much later inputs compensate, on the inputs that they were fitted to: with fewer inputs than columns they
promise what others don't keep. Each part of the inputs in turn is left out of the moments and judges the feedback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.quantize.rounding.feedback import factor, left_out_pivots

F64 = npt.NDArray[np.float64]

DAMPINGS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Dampings that may be tried, as shares of the mean diagonal: from the middle one on, as far as it gets better."""
EXPONENTS: Final = (0.0, 0.5)
"""Exponents of the inputs' steps that are tried: a squared step is a power of one over the pivot.

1 is right where all inputs to come are like those measured. See docs/adr/0016 for what it loses where they aren't.
"""
SPREAD_MAX: Final = 3.0
"""Largest factor between the step of an input and the average, either way: other inputs may use what these don't."""
DEAD: Final = 1e-3
"""Share of the median pivot below which an input is dead: it keeps its feedback, and gets the average step."""
_GAIN_LEAST: Final = 0.01
"""Least gain on left-out inputs that is believed, as a logarithm of the damage; a bit is worth 1.39."""
_STEPS_GAIN_LEAST: Final = 0.1
"""Least gain by steps beyond that by feedback: parts of one source promise more than inputs from elsewhere keep."""


@dataclass(frozen=True, eq=False)
class Validated:
    """Feedback and steps that do the least damage on left-out inputs. Equal only to itself.

    Attributes:
        damping: share of the mean diagonal; None where no feedback promises less damage than rounding to nearest.
        exponent: of the inputs' steps, one of EXPONENTS; 0 for equal steps.
        pivots: `(groups, inputs)`, the cost of errors of each input, averaged over the parts, each left out in turn.
        squared_steps: `(groups, inputs)`, the wanted squares of inputs' steps, of geometric mean 1.
    """

    damping: float | None
    exponent: float
    pivots: F64
    squared_steps: F64


def validate(
    covariance: Covariance,
    exponents: Sequence[float] = EXPONENTS,
    dampings: Sequence[float] = DAMPINGS,
    *,
    shared: bool = False,
) -> Validated | None:
    """Choose the damping and the exponent of steps that do the least damage on left-out inputs.

    The pivots of a part judge steps that were chosen by the pivots of the other parts.

    Args:
        covariance: of the weight's inputs.
        exponents: those of EXPONENTS to try.
        dampings: those of DAMPINGS to try, from the least on.
        shared: all groups have the same steps.

    Returns:
        None where the moments say nothing: one part only, or no variance, or values that are not finite.
    """
    moments = covariance.moments
    parts = range(len(moments))
    if len(moments) < 2 or not covariance.positions.all():
        return None
    diagonals = np.einsum("pgii->pgi", moments).astype(np.float64)
    if not np.isfinite(diagonals).all() or not diagonals.mean() > 0:
        return None
    others = [covariance.total(without=part) for part in parts]
    plain = _log_damage(diagonals, 0.0, shared)
    best: tuple[float, float | None, float, F64] = (plain, None, 0.0, diagonals)

    def try_pivots(damping: float | None, pivots: F64) -> float:
        nonlocal best
        judged = [
            (_log_damage(pivots, exponent, shared) + (_STEPS_GAIN_LEAST if exponent else 0.0), exponent)
            for exponent in exponents
        ]
        damage, exponent = min(judged)
        if damage < min(best[0], plain - _GAIN_LEAST):
            best = damage, damping, exponent, pivots
        return damage

    def try_damping(index: int) -> float:
        try:
            feedback = [factor(each, dampings[index])[0] for each in others]
        except np.linalg.LinAlgError:
            return np.inf
        pivots = np.stack([left_out_pivots(feedback[part], moments[part]) for part in parts])
        return try_pivots(dampings[index], pivots)

    try_pivots(None, diagonals)
    # The damage falls to one minimum and rises again: walk down from the middle.
    middle = len(dampings) // 2
    first = try_damping(middle)
    for direction in (-1, 1):
        index, last = middle, first
        while 0 <= index + direction < len(dampings) and (found := try_damping(index + direction)) < last:
            index, last = index + direction, found
        if index != middle:
            break
    _, damping, exponent, pivots = best
    mean = pivots.mean(axis=0)
    return Validated(damping, exponent, mean, _squared_steps(mean, exponent, shared))


def _log_damage(pivots: F64, exponent: float, shared: bool) -> float:
    """Return the logarithm of the damage on the parts, `pivots` of shape `(parts, groups, inputs)`."""
    if not exponent:
        return float(np.log(pivots.mean()))
    total = pivots.sum(axis=0)
    judged = [each * _squared_steps((total - each) / (len(pivots) - 1), exponent, shared) for each in pivots]
    return float(np.log(np.mean(judged)))


def _squared_steps(pivots: F64, exponent: float, shared: bool) -> F64:
    """Return powers of one over the pivots `(groups, inputs)`, of geometric mean 1; 1 for dead inputs.

    What lies further from the mean than SPREAD_MAX allows is capped.
    """
    used = pivots.mean(axis=0, keepdims=True) if shared else pivots
    floor = DEAD * np.median(used, axis=1, keepdims=True)
    live = used > np.maximum(floor, np.finfo(np.float64).tiny)
    logs = np.log(used, where=live, out=np.zeros_like(used))
    counts = np.maximum(live.sum(axis=1, keepdims=True), 1)
    means = logs.sum(axis=1, keepdims=True) / counts
    widest = 2 * np.log(SPREAD_MAX)
    powers = np.where(live, np.clip(-exponent * (logs - means), -widest, widest), 0.0)
    squared: F64 = np.exp(np.where(live, powers - powers.sum(axis=1, keepdims=True) / counts, 0.0))
    return np.broadcast_to(squared, pivots.shape)
