"""`split`: lossless coding of floats and bytes (SPEC.md, "Codec 3: split").

A float's bits, rotated left by one, have the exponent in their top byte. That byte is entropy-coded under row and
column classes; the sign and mantissa below it are stored as planes. Bytes have nothing below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from seed_runtime.codecs.arrays import Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.matrix import Piece
from seed_runtime.codecs.scatter import Scatterer
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.errors import FormatError
from seed_runtime.format.dtypes import DType
from seed_runtime.format.sections.holes import Hole

LOW_BITS: Final = {"float32": 24, "float16": 8, "bfloat16": 8, "int8": 0, "uint8": 0, "int4": 0, "uint4": 0}
"""Bits below the symbol, by the name of the dtype."""
_UNSIGNED: Final[dict[int, Any]] = {8: np.uint8, 16: np.uint16, 32: np.uint32}


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order (see codec.py). A window is overwritten by the next one."""
    for hole in holes:
        if hole.dtype.name not in LOW_BITS:
            raise FormatError(where, f"split does not decode {hole.dtype.name}")
    # Two 4-bit elements share a byte, and a byte is what is coded.
    counts = [hole.size if hole.dtype.bits < 8 else hole.count for hole in holes]
    reader = SymbolReader(chunks, counts, quantized=False, where=where, cores=cores)
    for matrix, hole in zip(reader.matrices, holes, strict=True):
        if matrix.low_bits != LOW_BITS[hole.dtype.name]:
            raise FormatError(where, f"{matrix.low_bits} low bits do not make a {hole.dtype.name}")
    scatterers = [Scatterer() for _ in holes]
    for piece in reader.pieces():
        yield from scatterers[piece.index].scatter(piece, _join(piece, holes[piece.index].dtype))


def _join(piece: Piece, dtype: DType) -> Values:
    unsigned = _UNSIGNED[max(8, dtype.bits)]
    if piece.low is None:
        # Without low bits, or without symbols: where all is dead, zeros of this type are what follows.
        return piece.symbols.astype(unsigned, copy=False)
    bits = piece.symbols.astype(unsigned)
    bits <<= unsigned(piece.matrix.low_bits)
    bits |= piece.low.astype(unsigned, copy=False)
    rotated: Values = (bits >> unsigned(1)) | (bits << unsigned(dtype.bits - 1))
    return rotated
