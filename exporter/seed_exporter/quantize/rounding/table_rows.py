"""Steps of a table's rows by how often they are read.

Errors of a row count as often as the row is read, so its squared step goes by one over that; how far is decided on
counts of inputs that were left out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

EXPONENTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Powers of one over a row's count that are tried for its squared step; 1 would be right if counts were exact."""
SMOOTHING: Final = 0.5
"""Times that a row counts as read beside those that were seen.

MiniLM-L6's table at 4 bits, counts of 64 texts: .5, .25, .1, .03 save .81, .86, .88, .88 bit a weight on other texts
of the kind, .70, .73, .74, .74 on licences and source code. On the embeddings of other texts, .5 and .1 are level.
"""
COARSEST: Final = 4.0
"""Largest factor between a row's step and the plain one, for rows that are never read."""
_CAPS: Final = 8
"""Times that too coarse rows are capped: each time the average, to which the cap refers, falls less."""
_GAIN_LEAST: Final = 0.01
"""Least gain on left-out inputs that is believed, as a logarithm of the damage."""


def squared_steps(counts: I64) -> F64 | None:
    """Choose squared steps of rows that do the least damage on left-out inputs, at the same rate.

    Args:
        counts: `(parts, rows)`, how often each row was read in each part of the inputs.

    Returns:
        `(rows,)`, of geometric mean 1; None where equal steps are as good.
    """
    read = counts[counts.sum(axis=1) > 0].astype(np.float64)
    if len(read) < 2:
        return None
    total = read.sum(axis=0)
    shares = read / read.sum(axis=1, keepdims=True)
    best, least = 0.0, -_GAIN_LEAST
    for exponent in EXPONENTS[1:]:
        found = [share @ _by_count(total - part, exponent) for share, part in zip(shares, read, strict=True)]
        damage = float(np.log(np.mean(found)))
        if damage < least:
            best, least = exponent, damage
    return _by_count(total, best) if best else None


def read_shares(counts: I64) -> F64:
    """Compute the share of positions that read each row, `(rows,)`, of `(parts, rows)` counts."""
    smoothed = counts.sum(axis=0) + SMOOTHING
    shares: F64 = smoothed / smoothed.sum()
    return shares


def _by_count(counts: F64, exponent: float) -> F64:
    """Compute squared steps of rows, of geometric mean 1, none too coarse."""
    logs = -exponent * np.log(counts + SMOOTHING)
    for _ in range(_CAPS):
        logs = np.minimum(logs - logs.mean(), 2 * np.log(COARSEST))
    squared: F64 = np.exp(logs - logs.mean())
    return squared
