"""Find the elements of an output that carry no number: masks, infinities, NaN.

They would swallow all others in a sum: one mask of the lowest float makes any error small beside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.golden import OUTLIER

_MASK_LEAST: Final = 8192.0
"""Least magnitude of a mask, such as -1e4 or -1e9; a saturated probability of 1 is none."""
_MASK_RATIO: Final = 1024.0
"""Least ratio of a mask to the root mean square of all other elements."""


def ordinary(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which elements are numbers to measure errors with, as flags of the same shape.

    NaN and infinities are not, nor are magnitudes from OUTLIER on, unless there are no others. Neither are
    masks: the lowest or the highest value, where it is large, far from all others, and occurs more than once.
    """
    found: npt.NDArray[np.bool_] = np.abs(values) < OUTLIER
    if not found.any():
        return np.isfinite(values)
    rest = values[found]
    for extreme in (rest.min(initial=0.0), rest.max(initial=0.0)):
        mask = found & (values == extreme)
        others = values[found & ~mask]
        if others.size and np.count_nonzero(mask) > 1:
            scale = float(np.sqrt(np.square(others).mean()))
            if abs(extreme) >= _MASK_LEAST and 0 < _MASK_RATIO * scale < abs(extreme):
                found &= ~mask
    return found
