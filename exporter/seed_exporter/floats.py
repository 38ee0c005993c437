"""Float tensors of any width as float32, and floats with fewer mantissa bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seed_exporter.graph import Weight


def as_float32(weight: Weight) -> npt.NDArray[np.float32]:
    """The values as `matrix_view()` lays them out; a view where the type is float32 already."""
    data = weight.data.reshape(weight.matrix_view())
    if weight.dtype.name == "bfloat16":
        return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return data.astype(np.float32, copy=False)


def with_mantissa(data: npt.NDArray[Any], bits: int, kept: int) -> npt.NDArray[Any]:
    """Floats rounded to `kept` of their `bits` mantissa bits, to nearest; infinities and NaN stay.

    Args:
        data: an array of IEEE floats, or of bfloat16's bits in uint16.
    """
    if kept >= bits:
        return data
    unsigned = np.dtype(f"u{data.dtype.itemsize}").type
    pattern = data.view(unsigned)
    half, mask = unsigned(1 << (bits - kept - 1)), unsigned((1 << (bits - kept)) - 1)
    exponent = unsigned(((1 << (8 * data.dtype.itemsize - 1 - bits)) - 1) << bits)
    rounded = (pattern + half) & ~mask
    special = (pattern & exponent == exponent) | (rounded & exponent == exponent)
    return np.where(special, pattern, rounded).view(data.dtype)
