"""Code lengths of integers by class of magnitude, for stages that choose integers before the coder has its tables.

The coder's own tables are shared by all weights of a stream; tables of the weights at hand, under the same classes,
stand for them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode.contexts import CLASS_STEP, CLASSES, ORIGIN

F64 = npt.NDArray[np.float64]

MAGNITUDES: Final = 64
"""Number of magnitudes with a code length of their own; the last one stands for all that are larger."""
_PRIOR: Final = 32.0
"""Number of integers that a class's geometric distribution counts for, beside those that were seen."""


def symbol_index(
    magnitudes: npt.NDArray[np.integer | np.floating], classes: npt.NDArray[np.uint8]
) -> npt.NDArray[np.intp]:
    """Compute where each integer's counts and code length stand in flat tables, of any shape.

    Args:
        magnitudes: of the integers.
        classes: of the integers, as `Classes.of_elements` gives them.
    """
    index: npt.NDArray[np.intp] = np.minimum(magnitudes, MAGNITUDES - 1).astype(np.intp)
    index += classes * np.intp(MAGNITUDES)
    return index


def count_symbols(index: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Count integers by class and magnitude, `(CLASSES, MAGNITUDES)`, from their `symbol_index`."""
    return np.bincount(index.reshape(-1), minlength=CLASSES * MAGNITUDES).reshape(CLASSES, MAGNITUDES)


def code_lengths(counts: npt.NDArray[np.int64]) -> F64:
    """Compute the bits of a magnitude with its sign, `(CLASSES, MAGNITUDES)`, from counts of the same shape."""
    sizes = np.arange(MAGNITUDES)
    total = counts.sum(axis=1, keepdims=True)
    centres = np.exp((np.arange(CLASSES)[:, None] + ORIGIN) * CLASS_STEP)
    means = np.divide((counts * sizes).sum(axis=1, keepdims=True), total, out=centres, where=total > 0)
    means = np.maximum(means, np.exp(ORIGIN * CLASS_STEP))
    base = (np.sqrt(1 + means**2) - 1) / means
    geometric = np.where(sizes > 0, 2.0, 1.0) * base**sizes * (1 - base) / (1 + base)
    shares = (counts + _PRIOR * geometric) / (total + _PRIOR)
    lengths: F64 = np.where(sizes > 0, 1.0, 0.0) - np.log2(np.maximum(shares, 2.0**-40))
    return lengths
