"""Symbol streams of SPEC.md, with the standard library alone: heads, lanes, low planes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.golden.plain_bytes import Bytes, unpack
from tests.golden.plain_float import rounded

MEBI = 1 << 20


@dataclass
class Matrix:
    count: int
    cols: int
    low_bits: int
    flags: int
    step: float
    delay: int = 0
    """Delay of the trellis, 0 for none."""
    row_steps: bytes = b""
    col_steps: bytes = b""
    row_classes: bytes = b""
    col_classes: bytes = b""
    added: list[int] = field(default_factory=list)
    """What each element adds to its class, beside its row and its column."""
    buckets: bool = False
    """Whether its symbols are buckets."""
    integers: dict[int, int] = field(default_factory=dict)
    """Return values by place in the matrix, without those of dead elements."""

    @property
    def rows(self) -> int:
        return self.count // self.cols

    def step_of(self, row: int) -> float:
        return rounded(self.step * (factor(self.row_steps[row]) if self.row_steps else 1))

    def widened(self, value: float, col: int) -> float:
        return rounded(value * factor(self.col_steps[col])) if self.col_steps else value


def factor(code: int) -> float:
    return float((1 + code % 8 / 8) * 2 ** (code // 8))


@dataclass
class Head:
    lanes: int
    tables: list[list[int]]
    matrices: list[Matrix]


def read_head(head: Bytes, counts: list[int], quantized: bool) -> Head:
    lanes, tables = 1 << head.uint(1), list[list[int]]()
    for _ in range(head.varint()):
        count = head.varint()
        if not count:
            tables.append(tables[-1])
            continue
        frequencies = [0] * 256
        escape = head.varint() if quantized else 0
        first = head.uint(1)
        for place in range(count):
            frequencies[(first + place) % 256] = head.varint()
        frequencies[0x80] += escape
        tables.append(frequencies)
    matrices = []
    for count in counts:
        cols, low_bits, flags = head.varint(), head.uint(1), head.uint(1)
        step = head.f32() if quantized else 1.0
        matrices.append(Matrix(count, cols, low_bits, flags, step, head.varint() if flags & 16 else 0))
    for matrix in matrices:
        matrix.row_steps = head.take(matrix.rows) if matrix.flags & 4 else b""
    for matrix in matrices:
        matrix.col_steps = head.take(matrix.cols) if matrix.flags & 8 else b""
    for matrix in matrices:
        matrix.row_classes = head.take(matrix.rows) if matrix.flags & 1 else b"\1" * matrix.rows
    for matrix in matrices:
        matrix.col_classes = head.take(matrix.cols) if matrix.flags & 2 else b"\1" * matrix.cols
    assert head.at == len(head.data)
    return Head(lanes, tables, matrices)


def head_of(chunk: bytes) -> Bytes:
    coded = Bytes(chunk)
    packing, size = coded.uint(1), coded.varint()
    head = Bytes(unpack(packing, coded.rest()))
    assert len(head.data) == size
    return head


def fill_matrices(head: Head, chunks: list[bytes], quantized: bool) -> None:
    """Return the integers of all live elements."""
    places = []  # matrix, place in it, table, number among the matrix's live ones
    for matrix in head.matrices:
        live = 0
        for place in range(matrix.count):
            row, col = divmod(place, matrix.cols)
            if matrix.row_classes[row] and matrix.col_classes[col]:
                table = matrix.row_classes[row] + matrix.col_classes[col] - 2
                table += matrix.added[place] if matrix.added else 0
                places.append((matrix, place, table, live))
                live += 1
    slots = []
    for frequencies in head.tables:
        starts = [sum(frequencies[:symbol]) for symbol in range(256)]
        slots.append([(s, starts[s], frequencies[s]) for s in range(256) for _ in range(frequencies[s])])
    states = list[int]()
    for number, chunk in enumerate(chunks):
        part, data = places[number * MEBI : (number + 1) * MEBI], Bytes(chunk)
        if not number:
            states = [data.uint(4) for _ in range(head.lanes)]
        words = Bytes(data.take(2 * data.varint()))
        lows = _read_planes(head, part, data)
        bits = Bits(data.take(data.varint())) if any(matrix.buckets for matrix, *_ in part) else Bits(b"")
        for index, (matrix, place, table, live) in enumerate(part):
            lane = index % head.lanes
            symbol, start, frequency = slots[table][states[lane] % 4096]
            states[lane] = frequency * (states[lane] // 4096) + states[lane] % 4096 - start
            if states[lane] < 1 << 16:
                states[lane] = states[lane] << 16 | words.uint(2)
            low = lows[id(matrix)][live] if matrix.low_bits else 0
            if quantized:
                if symbol == 0x80:
                    (high,) = struct.unpack("<i", data.take(4))
                else:
                    high = symbol - 256 * (symbol > 127)
                    high = bits.high(high) if matrix.buckets else high
                symbol = high
            matrix.integers[place] = (symbol << matrix.low_bits) | low
        assert data.at == len(data.data)
        assert words.at == len(words.data)
        assert (bits.at + 7) // 8 == len(bits.data)
    assert all(state == 1 << 16 for state in states)


class Bits:
    """The bits of buckets."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def high(self, symbol: int) -> int:
        i = abs(symbol)
        if i < 8:
            return symbol
        width, own = i // 8 - 1, 0
        for bit in range(width):
            own |= (self.data[self.at // 8] >> self.at % 8 & 1) << bit
            self.at += 1
        high = (8 + i % 8) * 2**width + own
        return high if symbol > 0 else -high


def _read_planes(head: Head, part: list[tuple[Matrix, int, int, int]], data: Bytes) -> dict[int, dict[int, int]]:
    lows: dict[int, dict[int, int]] = {}
    held = {id(matrix): [live for other, _, _, live in part if other is matrix] for matrix in head.matrices}
    spans = [(matrix, held[id(matrix)]) for matrix in head.matrices if held[id(matrix)] and matrix.low_bits]
    groups = [[span for span in spans if len(span[1]) < 4096]] + [[span] for span in spans if len(span[1]) >= 4096]
    for group in groups:
        for matrix, mine in group:
            lows[id(matrix)] = dict.fromkeys(mine, 0)
        for byte in range(3):
            having = [(matrix, mine) for matrix, mine in group if matrix.low_bits // 8 > byte]
            block = Bytes(_plane(data, sum(len(mine) for _, mine in having)) if having else b"")
            for matrix, mine in having:
                for live in mine:
                    lows[id(matrix)][live] |= block.uint(1) << 8 * byte
        for bit in range(7):
            having = [(matrix, mine) for matrix, mine in group if matrix.low_bits % 8 > bit]
            block = Bytes(_plane(data, sum((len(mine) + 7) // 8 for _, mine in having)) if having else b"")
            for matrix, mine in having:
                plane, place = block.take((len(mine) + 7) // 8), matrix.low_bits // 8 * 8 + bit
                for index, live in enumerate(mine):
                    lows[id(matrix)][live] |= (plane[index // 8] >> index % 8 & 1) << place
    return lows


def _plane(data: Bytes, size: int) -> bytes:
    packing = data.uint(1)
    return unpack(packing, data.take(data.varint() if packing else size))
