"""Encode side of `split`: exponents under row and column classes, signs and mantissas as planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode.contexts import F64, ORIGIN, Classes, from_levels
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.split import LOW_BITS
from seed_runtime.format.dtypes import DType

_OCTAVE = float(np.log(2))
_BIAS = {"float32": 127, "bfloat16": 127, "float16": 15}
_OCTAVES = 19
"""Number of octaves below 1.0 at which the first table stands: mean exponents of weights lie within these."""
_CLASS_STEP = 0.35
"""Distance of two neighbouring classes, as a natural logarithm: all octaves have a class of their own."""


def matrix_of(data: npt.NDArray[Any], dtype: DType) -> CodedMatrix:
    """Split the bits of a tensor into symbols and the bits below them.

    Args:
        data: `(rows, cols)` in `dtype.storage`; 4-bit types as their bytes.
        dtype: element type, one of LOW_BITS.
    """
    bits = data.view(np.dtype(f"u{data.dtype.itemsize}"))
    low_bits = LOW_BITS[dtype.name]
    if low_bits:
        width = bits.dtype.type(dtype.bits - 1)
        bits = (bits << bits.dtype.type(1)) | (bits >> width)
        low = (bits & bits.dtype.type((1 << low_bits) - 1)).astype(np.uint32).reshape(-1)
        symbols = (bits >> bits.dtype.type(low_bits)).astype(np.uint8)
        exponents = symbols.astype(np.float32) / (8 if dtype.name == "float16" else 1)
        levels = (exponents - (_BIAS[dtype.name] - _OCTAVES)) * _OCTAVE
        classes = _classes(levels.mean(axis=1, dtype=np.float64), levels.mean(axis=0, dtype=np.float64))
    else:
        low, symbols = None, bits.astype(np.uint8, copy=False)
        centre = np.uint8(np.bincount(symbols.reshape(-1), minlength=256).argmax())
        distance = np.abs((symbols - centre).view(np.int8).astype(np.int16))
        classes = _classes(np.log1p(distance.mean(axis=1)), np.log1p(distance.mean(axis=0)))
    return CodedMatrix(symbols.reshape(-1), classes, low_bits, low)


def _classes(rows: F64, cols: F64) -> Classes:
    # Table 0 is for level 0 here, and no row is dead: zeros have symbols as well.
    return from_levels(rows + ORIGIN * _CLASS_STEP, cols, float(cols.mean()), _CLASS_STEP)
