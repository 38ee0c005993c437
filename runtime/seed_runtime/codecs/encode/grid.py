"""Encode side of `grid`: quantize to a uniform grid, class by magnitude, code in lanes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode.contexts import magnitude_classes
from seed_runtime.codecs.encode.symbols import CodedMatrix
from seed_runtime.codecs.planes import ESCAPE

_ALPHABET_MEAN = 12.0
"""Mean magnitude of the symbols, in their own units, above which low bits go uncoded: flat to 0.01 bits there."""


def quantize(weights: npt.NDArray[np.float32], step: float) -> npt.NDArray[np.int32]:
    """Round to nearest on a grid of `step`; |q| is capped at 2**23, beyond which float32 has no more digits."""
    scaled = weights * np.float32(1 / step)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -(1 << 23), 1 << 23, out=scaled).astype(np.int32)


def matrix_of(integers: npt.NDArray[np.int32], step: float) -> CodedMatrix:
    """Symbols, low bits, escapes and classes of quantized integers, `(rows, cols)`."""
    magnitudes = np.abs(integers)
    mean = float(magnitudes.mean())
    low_bits = max(0, math.ceil(math.log2(mean / _ALPHABET_MEAN))) if mean > 0 else 0
    classes = magnitude_classes(magnitudes, 2.0**-low_bits)
    high = integers if (classes.rows > 0).all() and (classes.cols > 0).all() else integers[classes.live()]
    high = high.reshape(-1)
    low = None
    if low_bits:
        low = (high & np.int32((1 << low_bits) - 1)).view(np.uint32)
        high = high >> np.int32(low_bits)
    symbols = high.astype(np.int8).view(np.uint8)
    far = np.flatnonzero((high > 127) | (high < -127))
    symbols[far] = ESCAPE
    return CodedMatrix(symbols, classes, low_bits, low, high[far], step)
