"""Symbol streams of any number of matrices and chunks, as SPEC.md writes them (section "Symbol streams")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.spec_bytes import Matrix, Table, bits_of, f32, i32, rans_places, u8, u16, u32, varint

CHUNK = 1 << 20
SMALL = 4096
"""Elements of a matrix in a chunk from which its planes are not joined with those of others."""
Pack = Callable[[bytes], tuple[int, bytes]]
"""Gives the number of a packing, and the packed bytes."""


def stored(data: bytes) -> tuple[int, bytes]:
    return 0, data


def table_for(matrices: Sequence[Matrix], *, quantized: bool) -> Table:
    """Return a table in which all symbols of the matrices, and the escape, have about the same frequency."""
    found = {symbol for matrix in matrices for _, symbol in matrix.symbols}
    has_escape = quantized and 0x80 in found
    symbols = {symbol - 256 * (symbol > 127) for symbol in found - {0x80}} if quantized else found
    first, last = min(symbols, default=0), max(symbols, default=0)
    share = min(4095, 4096 // max(1, len(symbols) + has_escape))
    frequencies = [share if symbol in symbols else 0 for symbol in range(first, last + 1)]
    rest = 4096 - sum(frequencies)
    if has_escape:
        return Table(first & 0xFF, frequencies, rest)
    if len(symbols) <= 1:
        # One symbol can't have all slots: the next one has the last.
        frequencies = [4095, 1]
    else:
        frequencies[0] += rest
    return Table(first & 0xFF, frequencies, 0 if quantized else None)


@dataclass(frozen=True)
class Coded:
    """A symbol stream before it is written."""

    matrices: Sequence[Matrix]
    tables: Sequence[Table | None]
    """None for a class that shares the table of the one before."""
    lanes_log2: int = 0
    own: bytes = b""
    """Fields of the codec before the head's own."""
    quantized: bool = True

    def head(self, pack: Pack = stored) -> bytes:
        """Return the first chunk."""
        raw = self.own + u8(self.lanes_log2) + varint(len(self.tables)) + b"".join(map(_table, self.tables))
        for matrix in self.matrices:
            arrays = (matrix.row_classes, matrix.col_classes, matrix.row_steps, matrix.col_steps)
            flags = sum(1 << bit for bit, given in enumerate((*arrays, matrix.delay)) if given is not None)
            raw += varint(len(matrix.values[0])) + u8(matrix.low_bits) + u8(flags)
            raw += f32(matrix.step) if matrix.step is not None else b""
            raw += varint(matrix.delay) if matrix.delay is not None else b""
        for name in ("row_steps", "col_steps", "row_classes", "col_classes"):
            raw += b"".join(getattr(matrix, name) or b"" for matrix in self.matrices)
        packing, packed = pack(raw)
        return u8(packing) + varint(len(raw)) + packed

    def chunks(self, pack_head: Pack = stored, pack_plane: Pack = stored) -> list[bytes]:
        """Return all chunks."""
        symbols = [pair for matrix in self.matrices for pair in matrix.symbols]
        full: list[Table] = []
        for table in self.tables:
            full.append(table if table is not None else full[-1])
        states, words = rans_places(symbols, full, 1 << self.lanes_log2)
        out = [self.head(pack_head)]
        for start in range(0, len(symbols), CHUNK):
            stop = min(start + CHUNK, len(symbols))
            mine = [word for place, word in words if start <= place < stop]
            chunk = b"" if start else b"".join(map(u32, states))
            chunk += varint(len(mine)) + b"".join(map(u16, mine))
            chunk += self._planes(start, stop, pack_plane)
            spans = [span for span in self._spans(start, stop) if span[0].buckets]
            chunk += bits_of([pair for matrix, a, b in spans for pair in matrix.bits[a:b]]) if spans else b""
            out.append(chunk + i32(*self._escapes(start, stop)))
        return out

    def _spans(self, start: int, stop: int) -> list[tuple[Matrix, int, int]]:
        """Return the matrices that have symbols there, with the first and last of them."""
        found, begin = [], 0
        for matrix in self.matrices:
            a, b = max(start - begin, 0), min(stop - begin, len(matrix.symbols))
            if a < b:
                found.append((matrix, a, b))
            begin += len(matrix.symbols)
        return found

    def _planes(self, start: int, stop: int, pack: Pack) -> bytes:
        spans = [span for span in self._spans(start, stop) if span[0].low_bits]
        small = [span for span in spans if span[2] - span[1] < SMALL]
        out = b""
        for group in (small, *([span] for span in spans if span[2] - span[1] >= SMALL)):
            for position in range(3):
                having = [span for span in group if span[0].low_bits // 8 > position]
                if having:
                    out += _plane(b"".join(_octets(*span, position) for span in having), pack)
            for position in range(7):
                having = [span for span in group if span[0].low_bits % 8 > position]
                if having:
                    out += _plane(b"".join(_bits(*span, position) for span in having), pack)
        return out

    def _escapes(self, start: int, stop: int) -> list[int]:
        out = []
        for matrix, a, b in self._spans(start, stop):
            if matrix.step is not None:
                before = sum(symbol == 0x80 for _, symbol in matrix.symbols[:a])
                out += matrix.escaped[before : before + sum(symbol == 0x80 for _, symbol in matrix.symbols[a:b])]
        return out


def _table(table: Table | None) -> bytes:
    if table is None:
        return varint(0)
    out = varint(len(table.frequencies)) + (varint(table.escape) if table.escape is not None else b"")
    return out + u8(table.first) + b"".join(map(varint, table.frequencies))


def _octets(matrix: Matrix, a: int, b: int, position: int) -> bytes:
    return bytes(low >> 8 * position & 0xFF for low in matrix.low[a:b])


def _bits(matrix: Matrix, a: int, b: int, position: int) -> bytes:
    out, place = bytearray((b - a + 7) // 8), matrix.low_bits // 8 * 8 + position
    for index, low in enumerate(matrix.low[a:b]):
        out[index // 8] |= (low >> place & 1) << index % 8
    return bytes(out)


def _plane(data: bytes, pack: Pack) -> bytes:
    packing, packed = pack(data)
    return u8(packing) + (varint(len(packed)) if packing else b"") + packed
