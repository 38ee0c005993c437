"""`delta`: what differs from a base seed, tensor by tensor (SPEC.md, "Codec 7: delta").

A tensor is the base's as it is; the base's plus what `grid` would decode; the base's bits plus integers, without loss;
or what `grid` would decode, alone. The base is read in windows, so no tensor is ever whole in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from seed_runtime.codecs.arrays import F32, U8, WINDOW, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.buckets import HELD as BUCKETS_HELD
from seed_runtime.codecs.floats import STORED_AS, from_storage, to_storage
from seed_runtime.codecs.grid import Dequantizer, integers_of
from seed_runtime.codecs.matrix import Matrix
from seed_runtime.codecs.scatter import Scatterer
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.codecs.trellis import held_bytes as trellis_bytes
from seed_runtime.errors import FormatError
from seed_runtime.format.dtypes import DType
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import Hole

UNCHANGED, DIFFERENCE, BITS, ANEW, BY_OCTAVE = range(5)
"""Modes of a tensor."""
DIFFERENCE_STEP_LEAST: Final = 2.0**-100
"""Smallest step of differences: sums with larger ones are never subnormal, which some machines flush to zero."""
BITS_MAX: Final = 32
"""Size of the largest elements whose bits are coded as differences [bit]."""
BLOCK: Final = 1 << 15
"""Elements of the base that are read and added at a time: a window of them would take 4 MiB."""
_HELD: Final = 36 * BLOCK + 4 * WINDOW + BUCKETS_HELD
"""A block of the base, of sums and of what they become [B]: 33 bytes for each element of float64; and integers of
buckets."""
_SIGNED: Final[dict[int, Any]] = {1: np.int8, 2: np.int16, 4: np.int32}


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, base: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order (see codec.py). A window is overwritten by the next one."""
    if base is None:
        raise FormatError(where, "it holds differences, and the seed names no base")
    modes, reader = _open(holes, chunks, where, cores, base)
    changed = [index for index, mode in enumerate(modes) if mode != UNCHANGED]
    dequantizer, scatterer = Dequantizer(), Scatterer()
    windows: Iterator[Values]
    following = position = 0  # the first hole that nothing was yielded of, and the place in the one before
    for piece in reader.pieces():
        index = changed[piece.index]
        hole, mode = holes[index], modes[index]
        if index >= following:
            yield from _unchanged(base, holes, following, index)
            following, position = index + 1, 0
        if mode in (BITS, BY_OCTAVE):
            windows = scatterer.scatter(piece, integers_of(piece).astype(np.int32))
        else:
            windows = dequantizer.weights(piece)
        for block in _blocks(windows):
            start, position = position, position + block.size
            if mode == ANEW:
                yield to_storage(block, hole.dtype)
            elif mode == DIFFERENCE:
                yield add(base.read(index, start, position), block, hole.dtype)
            else:
                bits = _read_bits(base, hole, index, start, position)
                if mode == BY_OCTAVE:
                    block = away_from_zero(block, bits, hole.dtype)
                yield add_to_bits(bits, block, hole.dtype)
    yield from _unchanged(base, holes, following, len(holes))


def trellises(holes: Sequence[Hole], head: memoryview, where: str) -> list[bool]:
    """Return whether each hole's integers are on a trellis, by the first chunk of their stream.

    Raises:
        FormatError: the head breaks a rule of SPEC.md.
    """
    modes, reader = _open(holes, iter([head]), where, 1, None)
    matrices = iter(reader.matrices)
    return [mode != UNCHANGED and next(matrices).delay is not None for mode in modes]


def held_bytes(counts: Sequence[int]) -> int:
    """Return the most that decoding a stream of holes with so many elements holds [B]."""
    return trellis_bytes(counts) + _HELD


def add(base: Values, difference: F32, dtype: DType) -> Values:
    """Add differences to the base's elements: one sum of floats, rounded once.

    Where a difference is 0, or the base's element is infinite or not a number, its bits stay.

    Args:
        base: `(count,)` of `dtype.storage`, a type of STORED_AS.
        difference: `(count,)`.
        dtype: type of the elements.
    """
    floats = from_storage(base, dtype)
    stays = (difference == 0) | ~np.isfinite(floats)
    with np.errstate(over="ignore", invalid="ignore"):
        total = to_storage(floats + difference, dtype)
    return np.where(stays, base, total)


def ordered(bits: Values, dtype: DType) -> Values:
    """Return elements as integers in the order of their values, unsigned and of the same width.

    Of floats, negative ones are inverted and the others get the top bit; -0.0 stands just below 0.0.
    """
    if not _is_float(dtype):
        return bits
    top = bits.dtype.type(1 << (dtype.bits - 1))
    found: Values = np.where(bits & top, ~bits, bits | top)
    return found


def add_to_bits(base: Values, difference: Values, dtype: DType) -> Values:
    """Add integers to the base's elements in the order of their values, modulo 2 to the power of their width.

    Args:
        base: `(count,)` of unsigned integers, the bits of elements; of 4-bit types the bytes that hold them.
        difference: `(count,)` of int32.
        dtype: type of the elements, of BITS_MAX bits at most.
    """
    found: Values = ordered(base, dtype) + difference.view(np.uint32).astype(base.dtype)
    if not _is_float(dtype):
        return found
    top = base.dtype.type(1 << (dtype.bits - 1))
    bits: Values = np.where(found & top, found ^ top, ~found)
    return bits


def difference_of_bits(values: Values, base: Values, dtype: DType) -> Values:
    """Return what `add_to_bits` must add to get from the base to these values, int32; for the arguments see there."""
    found: Values = ordered(values, dtype) - ordered(base, dtype)
    signed: Values = found.view(_SIGNED[found.dtype.itemsize]).astype(np.int32)
    return signed


def away_from_zero(integers: Values, base: Values, dtype: DType) -> Values:
    """Return integers with those of negative elements negated, so that positive ones make magnitudes larger.

    Args:
        integers: `(count,)` of int32.
        base: `(count,)` of unsigned integers, the bits of floats.
        dtype: type of the floats.
    """
    found: Values = np.where(base >> base.dtype.type(dtype.bits - 1) != 0, -integers, integers)
    return found


_EXPONENTS: Final = {"float32": (23, 8), "bfloat16": (7, 8), "float16": (10, 5)}
"""Place and size of the exponent of types whose octaves tell of differences [bit]."""


def octaves_of(bits: Values, dtype: DType) -> U8 | None:
    """Return the exponents of elements, without the sign; None for types without octaves.

    Args:
        bits: unsigned integers, the bits of the elements.
        dtype: type of the elements.
    """
    if dtype.name not in _EXPONENTS:
        return None
    place, size = _EXPONENTS[dtype.name]
    found: U8 = (bits >> bits.dtype.type(place) & bits.dtype.type((1 << size) - 1)).astype(np.uint8)
    return found


def exponent_of(octave: int, dtype: DType) -> int:
    """Return the binary logarithm of the distance of neighbouring floats in an octave."""
    place, size = _EXPONENTS[dtype.name]
    return octave - (1 << (size - 1)) + 1 - place


def offset_of(octave: int, top: int, span: int) -> int:
    """Return what an octave adds to a class: 11 classes for each 4 octaves below the top one, and span at most."""
    return min(span, 11 * max(0, top - octave) // 4)


def _is_float(dtype: DType) -> bool:
    return "float" in dtype.name


def _open(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, cores: int, base: BaseWeights | None
) -> tuple[list[int], SymbolReader]:
    """Read the head; return the mode of each hole, and the reader of the matrices of those that aren't unchanged."""
    modes: list[int] = []
    octaves: list[_Octaves | None] = []

    def counts(head: Cursor) -> list[int]:
        modes.extend(head.take(len(holes), "modes"))
        for hole, mode in zip(holes, modes, strict=True):
            if mode > BY_OCTAVE:
                raise FormatError(head.where, f"mode {mode} of a tensor is unknown")
            if not _takes(hole.dtype, mode):
                raise FormatError(where, f"delta does not decode {hole.dtype.name} in mode {mode}")
        for index, mode in enumerate(modes):
            if mode == BY_OCTAVE:
                octaves.append(_Octaves(index, holes[index], head.uint(1, "top octave"), head.uint(1, "span")))
            elif mode != UNCHANGED:
                octaves.append(None)
        # Two 4-bit elements share a byte, and a byte is what is coded.
        return [
            hole.size if hole.dtype.bits < 8 else hole.count
            for hole, mode in zip(holes, modes, strict=True)
            if mode != UNCHANGED
        ]

    def offsets(matrix: int, start: int, stop: int) -> U8 | None:
        of_matrix = octaves[matrix]
        return None if of_matrix is None or base is None else of_matrix.offsets(base, start, stop)

    def in_buckets(matrix: int) -> bool:
        return octaves[matrix] is not None

    reader = SymbolReader(
        chunks, counts, quantized=True, where=where, cores=cores, trellis=True, offsets=offsets, in_buckets=in_buckets
    )
    changed = [mode for mode in modes if mode != UNCHANGED]
    for matrix, mode, of_matrix in zip(reader.matrices, changed, octaves, strict=True):
        _check(matrix, mode, f"{where}: head")
        if of_matrix is not None:
            of_matrix.check(matrix, reader.classes, f"{where}: head")
    return modes, reader


class _Octaves:
    """What the octaves of a base's tensor add to the classes of its integers."""

    def __init__(self, index: int, hole: Hole, top: int, span: int) -> None:
        self._index, self._hole, self._span = index, hole, span
        self._of_octave = np.array([offset_of(octave, top, span) for octave in range(256)], np.uint8)

    def check(self, matrix: Matrix, classes: int, where: str) -> None:
        """Raise FormatError for dead rows and columns, and for classes beyond the last one."""
        if matrix.live_rows is not None or matrix.live_cols is not None:
            raise FormatError(where, "integers under octaves have no dead rows and columns")
        if int(matrix.row_class.max()) + int(matrix.col_class.max()) + self._span >= classes:
            raise FormatError(where, "a row, a column and an octave add up to a class without a table")

    def offsets(self, base: BaseWeights, start: int, stop: int) -> U8:
        """Return what elements `start` to `stop` add."""
        out = np.empty(stop - start, np.uint8)
        for begin in range(start, stop, BLOCK):
            end = min(begin + BLOCK, stop)
            octaves = octaves_of(_read_bits(base, self._hole, self._index, begin, end), self._hole.dtype)
            assert octaves is not None
            out[begin - start : end - start] = self._of_octave[octaves]
        return out


def _takes(dtype: DType, mode: int) -> bool:
    """Return whether elements of a type may be coded so."""
    if mode in (BITS, UNCHANGED):
        return mode == UNCHANGED or dtype.bits <= BITS_MAX
    return dtype.name in (_EXPONENTS if mode == BY_OCTAVE else STORED_AS)


def _check(matrix: Matrix, mode: int, where: str) -> None:
    """Raise FormatError for steps that differences can't have."""
    least = float(matrix.steps.min(initial=np.inf))
    if mode == DIFFERENCE and least < DIFFERENCE_STEP_LEAST:
        raise FormatError(where, f"a step of {least} is too small for differences")
    has_steps = matrix.has_row_steps or matrix.col_factors is not None or matrix.delay is not None
    if mode in (BITS, BY_OCTAVE) and (has_steps or least != 1):
        raise FormatError(where, "integers that are added to bits have the step 1 and no other")


def _blocks(windows: Iterator[Values]) -> Iterator[Values]:
    return (window[start : start + BLOCK] for window in windows for start in range(0, window.size, BLOCK))


def _unchanged(base: BaseWeights, holes: Sequence[Hole], first: int, stop: int) -> Iterator[Values]:
    """Yield what the base has in these holes."""
    for index in range(first, stop):
        count = holes[index].count
        for start in range(0, count, BLOCK):
            yield base.read(index, start, min(start + BLOCK, count))


def _read_bits(base: BaseWeights, hole: Hole, index: int, start: int, stop: int) -> Values:
    """Return the bits of the base's elements; of 4-bit types bytes `start` to `stop`."""
    if hole.dtype.bits < 8:
        start, stop = 2 * start, min(2 * stop, hole.count)
    found = base.read(index, start, stop)
    return found.view(np.dtype(f"u{found.dtype.itemsize}"))
