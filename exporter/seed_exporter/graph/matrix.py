"""Float tensors of any width as float32, and floats with fewer mantissa bits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_exporter.graph.model import Weight
from seed_runtime.limits import SIDE_MAX

_SIDE: Final = SIDE_MAX // 2
"""Rows and columns of one matrix beyond which it is folded: more would leave little room in a stream for others."""
_SIDE_MOST: Final = SIDE_MAX
"""Of a matrix that can't be folded: it has a stream of its own."""
_FACTORS: Final = (2, 3, 5, 7, 11, 13)


def coded_view(weight: Weight) -> tuple[int, int]:
    """Rows and columns for coding, folded where one of them is too long for a stream's side arrays.

    4-bit elements are coded as the bytes that hold two of them.
    """
    rows, cols = weight.matrix_view()
    if weight.dtype.bits < 8:
        rows = rows if weight.size % rows == 0 else 1
        cols = weight.size // rows
    while (side := rows + cols) > _SIDE:
        factor = next((factor for factor in _FACTORS if max(rows, cols) % factor == 0), 1)
        folded = (rows * factor, cols // factor) if cols > rows else (rows // factor, cols * factor)
        if sum(folded) >= side:
            break
        rows, cols = folded
    return rows, cols


def fits_a_stream(weight: Weight) -> bool:
    """Whether symbols of this weight can be coded: a prime length of millions can't be folded."""
    return sum(coded_view(weight)) <= _SIDE_MOST


def as_float32(weight: Weight) -> npt.NDArray[np.float32]:
    """The values as `coded_view` lays them out; a view where the type is float32 already."""
    data = weight.data.reshape(coded_view(weight))
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
