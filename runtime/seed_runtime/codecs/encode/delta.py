"""Encode side of `delta`: tensors as what differs from a base's, quantized or bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.delta import BITS, DIFFERENCE, DIFFERENCE_STEP_LEAST, UNCHANGED
from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.encode.contexts import CLASS_STEP, CLASSES, ORIGIN, magnitude_classes
from seed_runtime.codecs.encode.grid import matrix_of, round_to_nearest
from seed_runtime.codecs.encode.matrix import CodedMatrix, folded
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.encode.symbols import SymbolStream
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives
from seed_runtime.limits import LOW_BITS_MAX

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

_SAMPLE: Final = 1 << 16
"""Number of integers, evenly spread, by which the number of low bits is chosen."""
_ESCAPE_BITS: Final = 32
"""Size of an escaped integer behind the words of its chunk [bit]."""
_STEP_LARGEST: Final = 2.0**100
"""Largest step: the largest integers times it are finite."""


@dataclass(frozen=True, eq=False)
class Change:
    """How one tensor is made of the base's. Equal only to itself."""

    mode: int
    """A mode of `codecs.delta`."""
    matrix: CodedMatrix | None = None
    """Its integers; None where nothing changed."""


NO_CHANGE: Final = Change(UNCHANGED)


def encode(changes: Sequence[Change], progress: Callable[[int], None] | None = None) -> SymbolStream:
    """Code consecutive tensors as one stream.

    Args:
        changes: of all tensors of the stream.
        progress: called with the number of symbols coded since its last call.
    """
    modes = bytes(change.mode for change in changes)
    matrices = [change.matrix for change in changes if change.matrix is not None]
    if matrices:
        return symbols.encode(matrices, progress, prefix=modes)
    packing, packed = pack(modes)
    return SymbolStream([primitives.uint(packing, 1) + primitives.varint(len(modes)) + packed], 0.0)


def view_of(dims: Sequence[int], count: int) -> tuple[int, int]:
    """Return rows and columns for coding: the first axis that isn't 1, and all others.

    Args:
        dims: of the tensor.
        count: its elements, of 4-bit types the bytes that hold them.
    """
    first = next((size for size in dims if size != 1), 1)
    vector = sum(size != 1 for size in dims) < 2 or count % first
    return folded(1 if vector else first, count if vector else count // first)


def quantized(difference: F32, step: float) -> Change:
    """Round differences to the nearest multiple of a step.

    Args:
        difference: `(rows, cols)`, finite.
        step: larger than 0; rounded to eighths of an octave, which take a byte less in a head.
    """
    rounded = round_to_nearest(difference, rounded_step(step))
    if not rounded.integers.any():
        return NO_CHANGE
    if len(difference) > 1:
        return Change(DIFFERENCE, matrix_of(rounded))
    # Of a vector, a column's magnitude is that of one element, which its symbol says as well.
    level = math.log(float(np.abs(rounded.integers).mean())) / CLASS_STEP
    rows = np.full(1, 1 + min(max(round(level) - ORIGIN, 0), CLASSES - 1), np.uint8)
    cols = np.ones(difference.shape[1], np.uint8)
    return Change(DIFFERENCE, matrix_of(replace(rounded, row_classes=rows, col_classes=cols)))


def rounded_step(step: float) -> float:
    """Return the nearest step with three bits of mantissa that a decoder takes."""
    step = min(max(step, DIFFERENCE_STEP_LEAST), _STEP_LARGEST)
    mantissa, exponent = math.frexp(step)
    return math.ldexp(round(mantissa * 16) / 16, exponent)


def exact(integers: I32) -> Change:
    """Keep integers that are added to bits.

    Args:
        integers: `(rows, cols)`, as `codecs.delta.difference_of_bits` gives them.
    """
    if not integers.any():
        return NO_CHANGE
    low_bits = _low_bits(integers)
    high = integers >> np.int32(low_bits)
    # Far ones are escapes, whatever their magnitude, and must not decide what the others of a row share.
    capped = np.minimum(np.abs(integers.astype(np.int64)), 128 << low_bits)
    classes = magnitude_classes(capped, 2.0**-low_bits)
    live = classes.live()
    high = high[live].reshape(-1)
    low = (integers[live].reshape(-1) & np.int32((1 << low_bits) - 1)).view(np.uint32) if low_bits else None
    symbols_ = high.astype(np.int8).view(np.uint8)
    far = np.flatnonzero((high > 127) | (high < -127))
    symbols_[far] = ESCAPE
    return Change(BITS, CodedMatrix(symbols_, classes, low_bits, low, high[far], 1.0))


def _low_bits(integers: I32) -> int:
    """Choose how many bits are left uncoded, by what a sample takes with each number of them."""
    sample = integers.reshape(-1)[:: max(1, integers.size // _SAMPLE)]
    costs = []
    for low_bits in range(LOW_BITS_MAX + 1):
        high = sample >> np.int32(low_bits)
        far = (high > 127) | (high < -127)
        counts = np.bincount(high[~far] + 127, minlength=256).astype(np.float64)
        counts[255] = np.count_nonzero(far)
        present = counts[counts > 0]
        entropy = float((present * np.log2(sample.size / present)).sum())
        costs.append(entropy + sample.size * low_bits + _ESCAPE_BITS * counts[255])
    return int(np.argmin(costs))
