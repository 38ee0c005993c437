"""`grid`: uniform scalar quantization, entropy-coded (SPEC.md, "Codec 2: grid").

weight = q * factor(column) * step(row), with q = symbol << low_bits | low: integers, then two multiplications in
float32, from left to right, or one where columns have no factors, so that every machine decodes the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from seed_runtime.codecs.arrays import F32, WINDOW, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.floats import STORED_AS, to_storage
from seed_runtime.codecs.matrix import Piece, rectangles
from seed_runtime.codecs.scatter import Scatterer
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.errors import FormatError
from seed_runtime.format.sections.holes import Hole


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order (see codec.py). A window is overwritten by the next one."""
    for hole in holes:
        if hole.dtype.name not in STORED_AS:
            raise FormatError(where, f"grid does not decode {hole.dtype.name}")
    reader = SymbolReader(chunks, [hole.count for hole in holes], quantized=True, where=where, cores=cores)
    scatterers = [Scatterer(hole.dtype.storage) for hole in holes]
    floats = np.empty(WINDOW, np.float32)
    for piece in reader.pieces():
        values = to_storage(dequantize_into(piece, floats[: piece.stop - piece.start]), holes[piece.index].dtype)
        yield from scatterers[piece.index].scatter(piece, values)


@np.errstate(over="ignore")
def dequantize_into(piece: Piece, out: F32) -> F32:
    """Multiply the integers of one piece by the factors of their columns, if any, then by the steps of their rows.

    Args:
        piece: integers and steps.
        out: `(stop - start,)`, overwritten; infinite where a product is too large.

    Returns:
        `out`.
    """
    matrix, steps = piece.matrix, piece.matrix.steps
    if piece.low is None:
        # Two calls: one that multiplies and casts goes through a buffer of NumPy's, a third slower. Escapes are few.
        np.copyto(out, piece.symbols.view(np.int8), "same_kind")
        out[piece.escapes] = piece.escaped
    else:
        np.copyto(out, integers_of(piece), "same_kind")
    if steps.size == 1 and matrix.col_factors is None:
        np.multiply(out, steps[0], out)
        return out
    offset = 0
    for row, row_end, col, col_end in rectangles(piece.start, piece.stop, matrix.col_class.size):
        size = (row_end - row) * (col_end - col)
        block = out[offset : offset + size].reshape(row_end - row, col_end - col)
        if matrix.col_factors is not None:
            np.multiply(block, matrix.col_factors[col:col_end], out=block)
        np.multiply(block, steps if steps.size == 1 else steps[row:row_end], out=block)
        offset += size
    return out


def integers_of(piece: Piece) -> Values:
    """Return the quantized integers of a piece: int8 where neither low bits nor escapes need more, else int32."""
    symbols = piece.symbols.view(np.int8)
    if piece.low is None and not piece.escapes.size:
        return symbols
    integers = symbols.astype(np.int32)
    integers[piece.escapes] = piece.escaped
    if piece.low is not None:
        integers <<= np.int32(piece.matrix.low_bits)
        integers |= piece.low.view(np.int32)
    return integers
