"""A decoder of seeds written from SPEC.md alone, with the standard library: slow, and in nothing like the runtime.

It checks little; that the runtime refuses what it must is tested elsewhere. It shows that the document is enough, and
that both read the same weights from it. Longer than 400 lines because it is one file that needs nothing else.
"""

from __future__ import annotations

import hashlib
import lzma
import string
import struct
import sys
import zlib
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from tests.golden import plain_adaptive
from tests.golden.plain_float import rounded, stored_as

BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16} | {
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
}
LOW_BITS_OF_SPLIT = {1: 24, 10: 8, 16: 8, 2: 0, 3: 0, 21: 0, 22: 0}
MEBI = 1 << 20


class Bytes:
    """Takes fields from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        assert self.at + size <= len(self.data), "cut"
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.uint(1)) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def f32(self) -> float:
        return float(struct.unpack("<f", self.take(4))[0])


@dataclass
class Hole:
    dtype: int
    skip: int
    dims: list[int]

    @property
    def count(self) -> int:
        return prod(self.dims)

    @property
    def size(self) -> int:
        return (self.count * BITS[self.dtype] + 7) // 8


def decode(seed: bytes) -> tuple[bytes, bytes]:
    """Return the skeleton and the weights file of a seed."""
    front = Bytes(seed)
    assert front.take(8) == bytes.fromhex("89534545440d0a1a")
    assert (front.uint(2), front.uint(2)) == (1, 0)
    header_size, file_size, digest = front.uint(4), front.uint(8), front.take(32)
    assert file_size == len(seed)
    header = Bytes(front.take(header_size))
    assert hashlib.sha256(seed[:24] + header.data).digest() == digest
    sections = {}
    while header.at < header_size:
        number = header.uint(2)
        sections[number] = Bytes(header.take(header.uint(4)))
    weights_size, weights_digest = sections[2].varint(), sections[2].take(32)
    parts = []
    for _ in range(sections[3].varint()):
        kind, packing = sections[3].uint(2), sections[3].uint(1)
        part = kind, packing, sections[3].varint(), sections[3].varint(), sections[3].take(32)
        parts.append((*part, sections[3].take(sections[3].varint()) if kind == 1 and packing & 0x80 else None))
    holes, end, count = [], 0, sections[4].varint()
    sections[4].take(3 * count)
    packing, size = sections[4].uint(1), sections[4].varint()
    records = Bytes(unpack(packing, sections[4].rest()))
    assert len(records.data) == size
    for _ in range(count):
        dtype, rank = records.uint(1), records.varint()
        holes.append(Hole(dtype, -end % 64, [records.varint() for _ in range(rank)]))
        end += -end % 64 + holes[-1].size
    skeleton = b""
    for kind, packing, raw_size, size, part_digest, names in parts:
        data = front.take(size)
        assert hashlib.sha256(data).digest() == part_digest
        if kind == 1:
            skeleton = unpack(packing & 0x7F, data) + (b"" if names is None else initializers(names, holes))
            assert len(skeleton) == raw_size
    weights, first = b"", 0
    for _ in range(sections[5].varint()):
        codec, taken, count = sections[5].uint(1), sections[5].varint(), sections[5].varint()
        sizes = [sections[5].varint() for _ in range(count)]
        digests = [sections[5].take(16) for _ in range(count)]
        chunks = [front.take(size) for size in sizes]
        assert [hashlib.sha256(chunk).digest()[:16] for chunk in chunks] == digests
        mine = holes[first : first + taken]
        data = CODECS[codec](mine, chunks)
        for hole in mine:
            weights += bytes(hole.skip) + data[: hole.size]
            data = data[hole.size :]
        assert not data
        first += taken
    assert front.at == len(seed)
    assert len(weights) == weights_size
    assert hashlib.sha256(weights).digest() == weights_digest
    return skeleton, weights


def initializers(names: bytes, holes: list[Hole]) -> bytes:
    """Return the fields of a graph that a seed leaves out."""

    def field(tag: int, data: bytes) -> bytes:
        return number(tag) + number(len(data)) + data

    out, end = b"", 0
    for index, hole in enumerate(holes):
        offset = end + hole.skip
        end = offset + hole.size
        tensor = b"".join(number(0x08) + number(dim) for dim in hole.dims) + number(0x10) + number(hole.dtype)
        tensor += field(0x42, names + numbered(index))
        for key, value in ((b"location", "model.weights"), (b"offset", str(offset)), (b"length", str(hole.size))):
            tensor += field(0x6A, field(0x0A, key) + field(0x12, value.encode()))
        out += field(0x2A, tensor + b"\x70\x01")
    return out


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + number(value // 128)


def numbered(index: int) -> bytes:
    digits, length = string.digits + string.ascii_lowercase + string.ascii_uppercase, 1
    while index >= 62**length:
        index, length = index - 62**length, length + 1
    return "".join(digits[index // 62**place % 62] for place in reversed(range(length))).encode()


def unpack(packing: int, data: bytes) -> bytes:
    if packing == 1:
        return zlib.decompress(data, -15)
    if packing == 2:
        pb, rest = divmod(data[0], 45)
        lp, lc = divmod(rest, 9)
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << data[1], "lc": lc, "lp": lp, "pb": pb}]
        return lzma.decompress(data[2:], lzma.FORMAT_RAW, filters=filters)
    assert packing == 0
    return data


def unshuffled(chunk: bytes) -> bytes:
    data, width = unpack(chunk[0], chunk[2:]), chunk[1]
    length = len(data) // width
    return bytes(data[place * length + index] for index in range(length) for place in range(width))


def raw(_: list[Hole], chunks: list[bytes]) -> bytes:
    return b"".join(unshuffled(chunk) for chunk in chunks)


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
                places.append((matrix, place, matrix.row_classes[row] + matrix.col_classes[col] - 2, live))
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
                symbol = high
            matrix.integers[place] = (symbol << matrix.low_bits) | low
        assert data.at == len(data.data)
        assert words.at == len(words.data)
    assert all(state == 1 << 16 for state in states)


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


def grid(holes: list[Hole], chunks: list[bytes]) -> bytes:
    head = read_head(head_of(chunks[0]), [hole.count for hole in holes], quantized=True)
    fill_matrices(head, chunks[1:], quantized=True)
    return grid_weights(holes, head.matrices)


def grid_weights(holes: list[Hole], matrices: list[Matrix]) -> bytes:
    out = bytearray()
    for hole, matrix in zip(holes, matrices, strict=True):
        steps = [matrix.step_of(row) for row in range(matrix.rows)]
        grids = grids_of(matrix) if matrix.delay else {}
        for place in range(matrix.count):
            weight = 0.0
            if place in matrix.integers:
                q = as_i32(matrix.integers[place])
                if matrix.delay:
                    q = as_i32(2 * q - grids[place] * ((q > 0) - (q < 0)))
                row, col = divmod(place, matrix.cols)
                weight = rounded(matrix.widened(rounded(q), col) * steps[row])
            out += stored_as(hole.dtype, weight)
    return bytes(out)


def as_i32(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def grids_of(matrix: Matrix) -> dict[int, int]:
    """Return the grid of each element of a matrix with a trellis."""
    grids: dict[int, int] = {}
    for place in range(matrix.count):
        parity = matrix.integers.get(place - 2 * matrix.delay, 0) % 2
        grids[place] = parity ^ grids.get(place - matrix.delay, 0) ^ grids.get(place - 3 * matrix.delay, 0)
    return grids


def split(holes: list[Hole], chunks: list[bytes]) -> bytes:
    counts = [hole.size if BITS[hole.dtype] < 8 else hole.count for hole in holes]
    head = read_head(head_of(chunks[0]), counts, quantized=False)
    fill_matrices(head, chunks[1:], quantized=False)
    out = bytearray()
    for hole, matrix in zip(holes, head.matrices, strict=True):
        assert matrix.low_bits == LOW_BITS_OF_SPLIT[hole.dtype]
        bits = max(8, BITS[hole.dtype])
        for place in range(matrix.count):
            value = matrix.integers.get(place, 0)
            if matrix.low_bits:
                value = (value >> 1) | (value & 1) << (bits - 1)
            out += value.to_bytes(bits // 8, "little")
    return bytes(out)


def lowrank(holes: list[Hole], chunks: list[bytes]) -> bytes:
    head_bytes, shapes, counts = head_of(chunks[0]), [], []
    for hole in holes:
        cols, rank = head_bytes.varint(), head_bytes.varint()
        shapes.append((hole.count // cols, cols, head_bytes.take(rank)))
        counts += [rank * cols, hole.count // cols * rank]
    head = read_head(head_bytes, counts, quantized=True)
    fill_matrices(head, chunks[1:], quantized=True)
    out = bytearray()
    for index, (hole, (rows, cols, shifts)) in enumerate(zip(holes, shapes, strict=True)):
        v, u = head.matrices[2 * index : 2 * index + 2]
        for row in range(rows):
            scale = rounded(u.step_of(row) * v.step_of(0))
            for col in range(cols):
                p = sum(
                    u.integers.get(row * len(shifts) + r, 0) * v.integers.get(r * cols + col, 0) << shift
                    for r, shift in enumerate(shifts)
                )
                out += stored_as(hole.dtype, rounded(v.widened(p, col) * scale))
    return bytes(out)


def adaptive(holes: list[Hole], chunks: list[bytes]) -> bytes:
    head, data, matrices, planes, shares = head_of(chunks[0]), Bytes(chunks[1]), [], [], []
    lanes = 1 << head.uint(1)
    for hole in holes:
        cols, taps = head.varint(), head.varint()
        planes.append(plain_adaptive.Plane(0, 0, taps, head.varint() if taps > 1 else 2))
        flags = head.uint(1)
        matrices.append(Matrix(hole.count, cols, 0, flags, head.f32(), head.varint() if flags & 16 else 0))
        shares.append([head.uint(1) if flags & bit else 256 for bit in (1, 2)])
    for matrix in matrices:
        matrix.row_steps = head.take(matrix.rows) if matrix.flags & 4 else b""
    for matrix in matrices:
        matrix.col_steps = head.take(matrix.cols) if matrix.flags & 8 else b""
    assert head.at == len(head.data)
    states = [data.uint(4) for _ in range(lanes)]
    words = Bytes(data.take(2 * data.varint()))
    coder = plain_adaptive.Lanes(states, [words.uint(2) for _ in range(len(words.data) // 2)])
    live = []
    for matrix, plane, (row_share, channel_share) in zip(matrices, planes, shares, strict=True):
        rows = [row for row in range(matrix.rows) if row_share == 256 or coder.decide(16 * row_share)]
        channels = range(matrix.cols // plane.taps)
        lives = [channel_share == 256 or coder.decide(16 * channel_share) for _ in channels]
        cols = [channel * plane.taps + tap for channel in channels if lives[channel] for tap in range(plane.taps)]
        plane.rows, plane.cols = len(rows), len(cols)
        live.append((rows, cols))
    escaped = plain_adaptive.walk(planes, lambda p, *_: coder.decide(p))
    coder.end()
    assert len(escaped) <= 16384
    for index, row, col in escaped:
        planes[index].values[row, col] += data.varint() * (1 if planes[index].values[row, col] > 0 else -1)
    assert data.at == len(data.data)
    for matrix, plane, (rows, cols) in zip(matrices, planes, live, strict=True):
        for i, row in enumerate(rows):
            matrix.integers |= {row * matrix.cols + col: plane.at(i, j) for j, col in enumerate(cols)}
    return grid_weights(holes, matrices)


def moments(holes: list[Hole], chunks: list[bytes]) -> bytes:
    head, data, out = head_of(chunks[0]), Bytes(raw(holes, chunks[1:])), bytearray()
    records = [(head.varint(), head.varint(), head.varint(), head.f32(), head.f32(), head.f32()) for _ in holes]
    for hole, (cols, count, seed, mean, deviation, threshold) in zip(holes, records, strict=True):
        rows = hole.count // cols
        first = struct.unpack(f"<{cols}e", data.take(2 * cols))
        components = [struct.unpack(f"<{cols}e", data.take(2 * cols)) for _ in range(count)]
        for row in range(rows):
            scores = struct.unpack(f"<{count}e", data.take(2 * count))
            for col in range(cols):
                weight = first[col]
                for score, component in zip(scores, components, strict=True):
                    weight = rounded(weight + rounded(score * component[col]))
                if mean or deviation:
                    weight = rounded(weight + normal(seed, row * cols + col, mean, deviation))
                out += stored_as(hole.dtype, 0.0 if abs(weight) < threshold else weight)
    assert data.at == len(data.data)
    return bytes(out)


def splitmix(seed: int, index: int) -> int:
    mask = (1 << 64) - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


def normal(seed: int, index: int, mean: float, deviation: float) -> float:
    z = splitmix(seed, index)
    total = sum(z >> 16 * part & 0xFFFF for part in range(4)) - 131070
    scaled = rounded(total * float.fromhex("0x1.bb67aep-16"))
    return rounded(rounded(scaled * deviation) + mean)


CODECS = {1: raw, 2: grid, 3: split, 4: moments, 5: lowrank, 8: adaptive}


def main(seed: str, folder: str) -> None:
    """Decode a seed to a folder, as tests/conformance asks."""
    skeleton, weights = decode(Path(seed).read_bytes())
    Path(folder).mkdir()
    Path(folder, "model.onnx").write_bytes(skeleton)
    Path(folder, "model.weights").write_bytes(weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
