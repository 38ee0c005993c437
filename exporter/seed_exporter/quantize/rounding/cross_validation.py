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

DAMPINGS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Dampings that are tried, as shares of the mean diagonal."""
EXPONENTS: Final = (0.0, 0.5, 1.0)
"""Exponents of the inputs' steps that are tried: a squared step is a power of one over the pivot."""
DEAD: Final = 1e-3
"""Share of the median pivot below which an input is dead: it keeps its feedback, and gets the average step."""
_GAIN_LEAST: Final = 0.01
"""Least gain on left-out inputs that is believed, as a logarithm of the damage; a bit is worth 1.39."""


@dataclass(frozen=True, eq=False)
class Validated:
    """Feedback and steps that do the least damage on left-out inputs. Equal only to itself.

    Attributes:
        damping: share of the mean diagonal; None where no feedback promises less damage than rounding to nearest.
        exponent: of the inputs' steps, one of EXPONENTS; 0 for equal steps.
        pivots: `(groups, inputs)`, the cost of errors of each input, averaged over the parts, each left out in turn.
        gain: bits a weight that feedback and steps are worth together on the parts left out.
    """

    damping: float | None
    exponent: float
    pivots: F64
    gain: float

    def squared_steps(self) -> F64:
        """Compute the squared steps of inputs, `(groups, inputs)`, of geometric mean 1."""
        return _squared_steps(self.pivots, self.exponent)


def validate(
    covariance: Covariance, exponents: Sequence[float] = (0.0,), dampings: Sequence[float] = DAMPINGS
) -> Validated | None:
    """Choose the damping and the exponent of steps that do the least damage on left-out inputs.

    The pivots of a part judge steps that were chosen by the pivots of the other parts.

    Args:
        covariance: of the weight's inputs.
        exponents: those of EXPONENTS to try.
        dampings: those of DAMPINGS to try.

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
    plain = _log_damage(diagonals, 0.0)
    best, least = Validated(None, 0.0, diagonals.mean(axis=0), 0.0), plain - _GAIN_LEAST
    for damping in (None, *dampings):
        pivots = diagonals
        if damping is not None:
            try:
                pivots = np.stack([left_out_pivots(factor(others[part], damping)[0], moments[part]) for part in parts])
            except np.linalg.LinAlgError:
                continue
        for exponent in exponents:
            damage = _log_damage(pivots, exponent)
            if damage < least:
                gain = (plain - damage) / np.log(4)
                best, least = Validated(damping, exponent, pivots.mean(axis=0), gain), damage
    return best


def _log_damage(pivots: F64, exponent: float) -> float:
    """Return the logarithm of the damage on the parts, `pivots` of shape `(parts, groups, inputs)`."""
    if not exponent:
        return float(np.log(pivots.mean()))
    total = pivots.sum(axis=0)
    judged = [each * _squared_steps((total - each) / (len(pivots) - 1), exponent) for each in pivots]
    return float(np.log(np.mean(judged)))


def _squared_steps(pivots: F64, exponent: float) -> F64:
    """Return powers of one over the pivots `(groups, inputs)`, of geometric mean 1; 1 for dead inputs."""
    floor = DEAD * np.median(pivots, axis=1, keepdims=True)
    live = pivots > np.maximum(floor, np.finfo(np.float64).tiny)
    logs = np.log(pivots, where=live, out=np.zeros_like(pivots))
    counts = live.sum(axis=1, keepdims=True)
    means = logs.sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    squared: F64 = np.exp(np.where(live, -exponent * (logs - means), 0.0))
    return squared
