"""Encode side of `delta`: tensors as what differs from a base's, quantized or bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import Values
from seed_runtime.codecs.buckets import LIMIT
from seed_runtime.codecs.delta import (
    BITS,
    BY_OCTAVE,
    DIFFERENCE,
    DIFFERENCE_STEP_LEAST,
    UNCHANGED,
    add_to_bits,
    away_from_zero,
    exponent_of,
    octaves_of,
    offset_of,
)
from seed_runtime.codecs.encode import buckets, symbols
from seed_runtime.codecs.encode.contexts import CLASS_STEP, CLASSES, ORIGIN, Classes, from_levels, magnitude_classes
from seed_runtime.codecs.encode.grid import QuantizedMatrix, matrix_of, round_to_nearest
from seed_runtime.codecs.encode.matrix import CodedMatrix, entropy_bits, folded
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.encode.symbols import SymbolStream
from seed_runtime.codecs.floats import from_storage
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import DType
from seed_runtime.limits import LOW_BITS_MAX

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

_SAMPLE: Final = 1 << 16
"""Number of integers, evenly spread, by which the number of low bits is chosen."""
_ESCAPE_BITS: Final = 32
"""Size of an escaped integer behind the words of its chunk [bit]."""
_FAR_SHARE: Final = 1 / 1024
"""Share of integers that may be beyond the largest bucket: an escape takes four bytes, a bit below all one bit each."""
_LEVEL_LEAST: Final = 1e-4
"""Mean magnitude of a symbol that the lowest class stands for: under octaves nothing is dead."""
_STEP_LARGEST: Final = 2.0**100
"""Largest step: the largest integers times it are finite."""


@dataclass(frozen=True, eq=False)
class Change:
    """How one tensor is made of the base's. Equal only to itself."""

    mode: int
    """A mode of `codecs.delta`."""
    matrix: CodedMatrix | None = None
    """Its integers; None where nothing changed."""
    top: int = 0
    """In mode BY_OCTAVE, the largest octave, and"""
    span: int = 0
    """the most that an octave adds to a class."""


NO_CHANGE: Final = Change(UNCHANGED)


def encode(changes: Sequence[Change], progress: Callable[[int], None] | None = None) -> SymbolStream:
    """Code consecutive tensors as one stream.

    Args:
        changes: of all tensors of the stream.
        progress: called with the number of symbols coded since its last call.
    """
    front = own_fields(changes)
    matrices = [change.matrix for change in changes if change.matrix is not None]
    if matrices:
        return symbols.encode(matrices, progress, prefix=front)
    packing, packed = pack(front)
    return SymbolStream([primitives.uint(packing, 1) + primitives.varint(len(front)) + packed], 0.0)


def own_fields(changes: Sequence[Change]) -> bytes:
    """Return the codec's fields before those of a symbol stream's head."""
    octaves = b"".join(bytes((change.top, change.span)) for change in changes if change.mode == BY_OCTAVE)
    return bytes(change.mode for change in changes) + octaves


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
    return of_rounded(round_to_nearest(difference, rounded_step(step)))


def of_rounded(rounded: QuantizedMatrix) -> Change:
    """Return the change that adds integers times a step, which `rounded_step` gave."""
    if not rounded.integers.any():
        return NO_CHANGE
    if len(rounded.integers) > 1:
        return Change(DIFFERENCE, matrix_of(rounded))
    # Of a vector, a column's magnitude is that of one element, which its symbol says as well.
    level = math.log(float(np.abs(rounded.integers).mean())) / CLASS_STEP
    rows = np.full(1, 1 + min(max(round(level) - ORIGIN, 0), CLASSES - 1), np.uint8)
    cols = np.ones(rounded.integers.shape[1], np.uint8)
    return Change(DIFFERENCE, matrix_of(replace(rounded, row_classes=rows, col_classes=cols)))


def rounded_step(step: float) -> float:
    """Return the nearest step with three bits of mantissa that a decoder takes."""
    step = min(max(step, DIFFERENCE_STEP_LEAST), _STEP_LARGEST)
    mantissa, exponent = math.frexp(step)
    return math.ldexp(round(mantissa * 16) / 16, exponent)


def exact(integers: I32, base: Values, dtype: DType) -> Change:
    """Keep integers that are added to bits, under the octaves of the base's elements where that takes fewer bytes.

    Args:
        integers: `(rows, cols)`, as `codecs.delta.difference_of_bits` gives them.
        base: `(rows, cols)` of unsigned integers, the bits of the base's elements.
        dtype: type of the elements.
    """
    if not integers.any():
        return NO_CHANGE
    low_bits = _low_bits(integers)
    # Far ones are escapes, whatever their magnitude, and must not decide what the others of a row share.
    capped = np.minimum(np.abs(integers.astype(np.int64)), 128 << low_bits)
    plain = Change(BITS, _split(integers, low_bits, magnitude_classes(capped, 2.0**-low_bits)))
    octaves = octaves_of(base, dtype)
    if octaves is None:
        return plain
    return min(plain, _under_octaves(integers, base, dtype, octaves), key=size_of)


def size_of(change: Change) -> float:
    """Estimate the size of a change by the entropy of its symbols [B]. Making tables would take ten times as long.

    A table costs about half the logarithm of its symbols for each different one.
    """
    if (matrix := change.matrix) is None:
        return 0.0
    counts = matrix.counts
    counts = counts[counts.any(axis=1)]
    kinds = np.count_nonzero(counts, axis=1)
    bits = entropy_bits(counts) + float((kinds * np.log2(counts.sum(axis=1))).sum()) / 2 + matrix.side_bits
    return bits / 8 + matrix.low_bytes + _ESCAPE_BITS // 8 * matrix.escaped.size


def _under_octaves(integers: I32, base: Values, dtype: DType, octaves: U8) -> Change:
    """Class integers by row, column and octave, as buckets that tell of the way to zero and from it.

    Of two elements that change by as much, the one that is half as large moves by twice as many numbers.
    """
    top = int(octaves.max())
    low_bits = _low_bits_of_buckets(integers)
    # How far values move, not how many numbers they pass: near zero these are many.
    moves = np.ldexp(_distance(integers, base, dtype), -exponent_of(top, dtype) - low_bits)
    rows, cols = (np.log(np.maximum(moves.mean(axis=axis), _LEVEL_LEAST)) for axis in (1, 0))
    found = from_levels(rows, cols, float(np.log(max(float(moves.mean()), _LEVEL_LEAST))))
    span = CLASSES - 1 - (int(found.rows.max()) + int(found.cols.max()) - 2)
    offsets = np.array([offset_of(octave, top, span) for octave in range(256)], np.uint8)[octaves]
    span = min(span, int(offsets.max()))
    away = away_from_zero(integers, base, dtype).reshape(-1)
    high, low = away >> np.int32(low_bits), None
    if low_bits:
        low = (away & np.int32((1 << low_bits) - 1)).view(np.uint32)
    symbols, below = buckets.split(high)
    escaped = high[symbols == ESCAPE]
    matrix = CodedMatrix(symbols, replace(found, offsets=offsets), low_bits, low, escaped, 1.0, below=below)
    return Change(BY_OCTAVE, matrix, top, span)


def _distance(integers: I32, base: Values, dtype: DType) -> npt.NDArray[np.float64]:
    """Return by how much elements change, 0 where that isn't finite, `(rows, cols)`."""
    # NaN of 16 bits become others of 32, and infinities have no difference: neither counts.
    with np.errstate(invalid="ignore"):
        ends = [
            from_storage(bits.view(dtype.storage), dtype).astype(np.float64)
            for bits in (base, add_to_bits(base, integers, dtype))
        ]
        distance = np.abs(ends[1] - ends[0])
    return np.where(np.isfinite(distance), distance, 0)


def _low_bits_of_buckets(integers: I32) -> int:
    """Choose how many bits are left below buckets: those that no integer has, and those beyond the largest bucket."""
    either = int(np.bitwise_or.reduce(integers, axis=None))
    empty = (either & -either).bit_length() - 1
    largest = int(np.quantile(np.abs(integers.astype(np.int64)), 1 - _FAR_SHARE))
    return min(max(empty, largest.bit_length() - (LIMIT.bit_length() - 1)), LOW_BITS_MAX)


def _split(integers: I32, low_bits: int, classes: Classes) -> CodedMatrix:
    """Split integers into symbols, low bits and escapes."""
    live = integers[classes.live()].reshape(-1)
    high = live >> np.int32(low_bits)
    low = (live & np.int32((1 << low_bits) - 1)).view(np.uint32) if low_bits else None
    coded = high.astype(np.int8).view(np.uint8)
    far = np.flatnonzero((high > 127) | (high < -127))
    coded[far] = ESCAPE
    return CodedMatrix(coded, classes, low_bits, low, high[far], 1.0)


def _low_bits(integers: I32) -> int:
    """Choose how many bits are left uncoded, by what a sample takes with each number of them."""
    sample = integers.reshape(-1)[:: max(1, integers.size // _SAMPLE)]
    costs = []
    for low_bits in range(LOW_BITS_MAX + 1):
        high = sample >> np.int32(low_bits)
        far = (high > 127) | (high < -127)
        counts = np.bincount(np.where(far, 255, np.clip(high, -127, 127) + 127), minlength=256)[None]
        costs.append(entropy_bits(counts) + sample.size * low_bits + _ESCAPE_BITS * np.count_nonzero(far))
    return int(np.argmin(costs))
