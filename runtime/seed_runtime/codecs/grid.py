"""`grid`: uniform scalar quantization, entropy-coded (SPEC.md, "Codec 2: grid").

weight = q * factor(column) * step(row), with q = symbol << low_bits | low: integers, then two multiplications in
float32, from left to right, or one where columns have no factors, so that every machine decodes the same bits.
On a trellis q is 2 * that integer, or one less in magnitude, see trellis.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from seed_runtime.codecs.arrays import F32, WINDOW, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.floats import STORED_AS, to_storage
from seed_runtime.codecs.matrix import Matrix, Piece, among_ones, rectangles
from seed_runtime.codecs.scatter import Scatterer
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.codecs.trellis import Trellis
from seed_runtime.errors import FormatError
from seed_runtime.format.sections.holes import Hole

_SHORT: Final = 1 << 14
"""Magnitude below which integers are int16: a trellis doubles them."""


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order (see codec.py). A window is overwritten by the next one."""
    for hole in holes:
        if hole.dtype.name not in STORED_AS:
            raise FormatError(where, f"grid does not decode {hole.dtype.name}")
    counts = [hole.count for hole in holes]
    reader = SymbolReader(chunks, counts, quantized=True, where=where, cores=cores, trellis=True)
    yield from weights_of(reader.pieces(), holes)


def weights_of(pieces: Iterable[Piece], holes: Sequence[Hole]) -> Iterator[Values]:
    """Yield the elements of all holes in order, made of the integers of live ones. The next window overwrites one.

    Args:
        pieces: in order, at least one for each hole.
        holes: of types in STORED_AS.
    """
    dequantizer = Dequantizer()
    for piece in pieces:
        for weights in dequantizer.weights(piece):
            yield to_storage(weights, holes[piece.index].dtype)


class Dequantizer:
    """Makes whole matrices of float32 of their pieces, one matrix after the other.

    Memory: a window of floats, and what `Scatterer` and the trellis hold.
    """

    def __init__(self) -> None:
        self._scatterer = Scatterer()
        self._floats = np.empty(WINDOW, np.float32)
        self._on_trellis: _OnTrellis | None = None

    def weights(self, piece: Piece) -> Iterator[F32]:
        """Yield the elements that the next piece completes; the next window overwrites one."""
        if piece.matrix.delay is None:
            values = dequantize_into(piece, self._floats[: piece.stop - piece.start])
            yield from self._scatterer.scatter(piece, values)
            return
        if self._on_trellis is None or not piece.start:
            self._on_trellis = _OnTrellis(piece.matrix, piece.matrix.delay)
        for integers in self._scatterer.scatter(piece, integers_of(piece)):
            yield from self._on_trellis.weights(integers, self._floats)


def trellises(holes: Sequence[Hole], head: memoryview, where: str) -> list[bool]:
    """Return whether each hole's weights are on a trellis, by the first chunk of their stream.

    Raises:
        FormatError: the head breaks a rule of SPEC.md.
    """
    counts = [hole.count for hole in holes]
    reader = SymbolReader(iter([head]), counts, quantized=True, where=where, trellis=True)
    return [matrix.delay is not None for matrix in reader.matrices]


class _OnTrellis:
    """Weights of one matrix with a trellis, whose dead elements count, so that its rows and columns are whole."""

    def __init__(self, matrix: Matrix, delay: int) -> None:
        self._trellis = Trellis(delay, matrix.rows * matrix.cols)
        self._cols, self._done = matrix.cols, 0
        self._steps, self._col_factors = matrix.steps, matrix.col_factors
        if matrix.has_row_steps:
            self._steps = among_ones(matrix.steps, matrix.live_rows, matrix.rows)
        if matrix.col_factors is not None:
            self._col_factors = among_ones(matrix.col_factors, matrix.live_cols, matrix.cols)

    def weights(self, integers: Values, out: F32) -> Iterator[F32]:
        """Yield the weights of the next elements, in `out`, a window at a time."""
        for start in range(0, integers.size, WINDOW):
            values = self._trellis.values(integers[start : start + WINDOW])
            weights = out[: values.size]
            np.copyto(weights, values, "same_kind")
            _multiply(weights, self._done, self._cols, self._col_factors, self._steps)
            self._done += values.size
            yield weights


def dequantize_into(piece: Piece, out: F32) -> F32:
    """Multiply the integers of one piece by the factors of their columns, if any, then by the steps of their rows.

    Args:
        piece: integers and steps.
        out: `(stop - start,)`, overwritten; infinite where a product is too large.

    Returns:
        `out`.
    """
    matrix = piece.matrix
    if piece.low is None:
        # Two calls: one that multiplies and casts goes through a buffer of NumPy's, a third slower. Escapes are few.
        np.copyto(out, piece.symbols.view(np.int8), "same_kind")
        out[piece.escapes] = piece.escaped
    else:
        np.copyto(out, integers_of(piece), "same_kind")
    _multiply(out, piece.start, matrix.col_class.size, matrix.col_factors, matrix.steps)
    return out


@np.errstate(over="ignore")
def _multiply(values: F32, start: int, cols: int, col_factors: F32 | None, steps: F32) -> None:
    """Multiply values from element `start` on by their columns' factors, if any, then by their rows' steps."""
    if steps.size == 1 and col_factors is None:
        np.multiply(values, steps[0], values)
        return
    offset = 0
    for row, row_end, col, col_end in rectangles(start, start + values.size, cols):
        size = (row_end - row) * (col_end - col)
        block = values[offset : offset + size].reshape(row_end - row, col_end - col)
        if col_factors is not None:
            np.multiply(block, col_factors[col:col_end], out=block)
        np.multiply(block, steps if steps.size == 1 else steps[row:row_end], out=block)
        offset += size


def integers_of(piece: Piece) -> Values:
    """Return the quantized integers of a piece: int8; int16 of magnitudes below 2**14, or int32, where one needs it."""
    symbols = piece.symbols.view(np.int8) if piece.high is None else piece.high
    if piece.low is None and not piece.escapes.size:
        return symbols
    if symbols.itemsize == 1 and piece.low is None and -_SHORT < piece.escaped.min() <= piece.escaped.max() < _SHORT:
        short = symbols.astype(np.int16)
        short[piece.escapes] = piece.escaped
        return short
    integers = symbols.astype(np.int32)
    integers[piece.escapes] = piece.escaped
    if piece.low is not None:
        integers <<= np.int32(piece.matrix.low_bits)
        integers |= piece.low.view(np.int32)
    return integers
