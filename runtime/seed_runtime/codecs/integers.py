"""`integers`: the integers of `grid` as a model computes with them, in bytes or packed (SPEC.md, "Codec 9: integers").

No float is made on the way: a symbol is the byte, or the field of a byte, that the model reads. Its steps are weights
of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from seed_runtime.codecs.arrays import U8, WINDOW, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.grid import integers_of
from seed_runtime.codecs.matrix import Matrix, Piece
from seed_runtime.codecs.scatter import Scatterer
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.codecs.trellis import Trellis
from seed_runtime.errors import FormatError
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import Hole

WIDTHS: Final = (2, 4, 8)
"""Widths that an integer may have [bit]."""
_SIGNED, _UNSIGNED = "int8", "uint8"


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order (see codec.py). A window is overwritten by the next one."""
    for hole in holes:
        if hole.dtype.name not in (_SIGNED, _UNSIGNED):
            raise FormatError(where, f"integers does not decode {hole.dtype.name}")
    reader, widths = _reader(holes, chunks, where, cores)
    storing: _Storing | None = None
    for piece in reader.pieces():
        if storing is None or not piece.start:
            signed = holes[piece.index].dtype.name == _SIGNED
            storing = _Storing(piece.matrix, widths[piece.index], signed, where)
        yield from storing.stored(piece)


def trellises(holes: Sequence[Hole], head: memoryview, where: str) -> list[bool]:
    """Return whether each hole's integers are on a trellis, by the first chunk of their stream.

    Raises:
        FormatError: the head breaks a rule of SPEC.md.
    """
    return [matrix.delay is not None for matrix in _reader(holes, iter([head]), where, 1)[0].matrices]


def _reader(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, cores: int
) -> tuple[SymbolReader, Sequence[int]]:
    """Read the head: return what gives the integers, and the width of each hole's."""
    widths: list[int] = []

    def counts(head: Cursor) -> list[int]:
        widths.extend(head.take(len(holes), "widths"))
        for hole, width in zip(holes, widths, strict=True):
            if width not in WIDTHS or (width != 8 and hole.dtype.name == _SIGNED):
                raise FormatError(head.where, f"integers of {width} bits don't stand in {hole.dtype.name}")
        return [8 // width * hole.count for hole, width in zip(holes, widths, strict=True)]

    reader = SymbolReader(chunks, counts, quantized=True, where=where, cores=cores, trellis=True)
    for matrix in reader.matrices:
        if matrix.has_row_steps or matrix.col_factors is not None or matrix.steps[0, 0] != 1:
            raise FormatError(f"{where}: head", "integers have a step other than 1")
    return reader, widths


class _Storing:
    """Makes the bytes of one matrix of its pieces, in order. Memory: some windows, and what a trellis holds."""

    def __init__(self, matrix: Matrix, width: int, signed: bool, where: str) -> None:
        self._width, self._signed, self._where = width, signed, where
        self._scatterer = Scatterer()
        self._trellis = None if matrix.delay is None else Trellis(matrix.delay, matrix.rows * matrix.cols)
        self._rest = np.empty(0, np.uint8)

    def stored(self, piece: Piece) -> Iterator[Values]:
        """Yield the bytes that the next piece completes."""
        for integers in self._scatterer.scatter(piece, integers_of(piece)):
            if self._trellis is None:
                yield self._packed(self._checked(integers))
                continue
            for start in range(0, integers.size, WINDOW):
                yield self._packed(self._checked(self._trellis.values(integers[start : start + WINDOW])))

    def _checked(self, integers: Values) -> U8:
        """Return integers as fields of a byte, and refuse those that it doesn't hold."""
        half = 1 << (self._width - 1)
        # All that one byte holds are integers of 8 bits.
        if (integers.itemsize > 1 or self._width < 8) and integers.size:
            least, most = int(integers.min()), int(integers.max())
            if least < -half or most >= half:
                far = least if least < -half else most
                raise FormatError(self._where, f"an integer of {far} has more than {self._width} bits")
        fields: U8 = integers.view(np.uint8) if integers.itemsize == 1 else integers.astype(np.uint8)
        return fields if self._signed else fields + np.uint8(half)

    def _packed(self, fields: U8) -> U8:
        """Return bytes of as many fields as each holds; a byte's first fields may wait for its last one."""
        if self._width == 8:
            return fields
        if self._rest.size:
            fields = np.concatenate((self._rest, fields))
        whole = fields.size & -(8 // self._width)
        self._rest, fields = fields[whole:].copy(), fields[:whole]
        packed: Values
        if self._width == 4:
            pairs = fields.view("<u2")
            packed = pairs | pairs >> np.uint16(4)
        else:
            quads = fields.view("<u4")
            packed = quads | quads >> np.uint32(6) | quads >> np.uint32(12) | quads >> np.uint32(18)
        return packed.astype(np.uint8)
