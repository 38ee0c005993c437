"""The codecs of SPEC.md, with the standard library alone, one function each, by number."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator

from tests.golden import plain_adaptive
from tests.golden.plain_bytes import BITS, Bytes, Hole, unpack
from tests.golden.plain_float import number_of, rounded, stored_as
from tests.golden.plain_symbols import Matrix, fill_matrices, head_of, read_head

Base = Callable[[int], bytes]
"""Gives the bytes of the base's hole for a hole of the stream, by its number there."""
LOW_BITS_OF_SPLIT = {1: 24, 10: 8, 16: 8, 2: 0, 3: 0, 21: 0, 22: 0}


def unshuffled(chunk: bytes) -> bytes:
    data, width = unpack(chunk[0], chunk[2:]), chunk[1]
    length = len(data) // width
    return bytes(data[place * length + index] for index in range(length) for place in range(width))


def raw(_: list[Hole], chunks: list[bytes]) -> bytes:
    return b"".join(unshuffled(chunk) for chunk in chunks)


def grid(holes: list[Hole], chunks: list[bytes]) -> bytes:
    head = read_head(head_of(chunks[0]), [hole.count for hole in holes], quantized=True)
    fill_matrices(head, chunks[1:], quantized=True)
    return grid_weights(holes, head.matrices)


def grid_weights(holes: list[Hole], matrices: list[Matrix]) -> bytes:
    out = bytearray()
    for hole, matrix in zip(holes, matrices, strict=True):
        for weight in grid_floats(matrix):
            out += stored_as(hole.dtype, weight)
    return bytes(out)


def grid_floats(matrix: Matrix) -> Iterator[float]:
    """Yield the float32 of all elements of a matrix."""
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
        yield weight


def integers(holes: list[Hole], chunks: list[bytes]) -> bytes:
    head_bytes = head_of(chunks[0])
    widths = head_bytes.take(len(holes))
    counts = [8 // width * hole.count for hole, width in zip(holes, widths, strict=True)]
    head = read_head(head_bytes, counts, quantized=True)
    fill_matrices(head, chunks[1:], quantized=True)
    out = bytearray()
    for hole, width, matrix in zip(holes, widths, head.matrices, strict=True):
        assert width == 8 or (width in (2, 4) and hole.dtype == 2)
        assert (matrix.step, matrix.flags & 12) == (1, 0)
        offset = 0 if hole.dtype == 3 else 1 << (width - 1)
        values = [int(value) for value in grid_floats(matrix)]
        assert all(-(1 << (width - 1)) <= value < 1 << (width - 1) for value in values)
        for at in range(0, len(values), 8 // width):
            fields = values[at : at + 8 // width]
            out.append(sum((value + offset) % (1 << width) << width * place for place, value in enumerate(fields)))
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


def delta(holes: list[Hole], chunks: list[bytes], base: Base) -> bytes:
    head_bytes = head_of(chunks[0])
    modes = head_bytes.take(len(holes))
    assert all(mode < 5 for mode in modes)
    octaves = {index: (head_bytes.uint(1), head_bytes.uint(1)) for index, mode in enumerate(modes) if mode == 4}
    changed = [hole for hole, mode in zip(holes, modes, strict=True) if mode]
    if not changed:
        assert (head_bytes.at, len(chunks)) == (len(head_bytes.data), 1)
        return b"".join(base(index) for index in range(len(holes)))
    counts = [hole.size if BITS[hole.dtype] < 8 else hole.count for hole in changed]
    head = read_head(head_bytes, counts, quantized=True)
    numbers = [index for index, mode in enumerate(modes) if mode]
    for index, matrix in zip(numbers, head.matrices, strict=True):
        if index in octaves:
            assert 0 not in matrix.row_classes + matrix.col_classes
            matrix.added = _added(holes[index], base(index), *octaves[index])
            matrix.buckets = True
    fill_matrices(head, chunks[1:], quantized=True)
    matrices, out = iter(head.matrices), bytearray()
    for index, (hole, mode) in enumerate(zip(holes, modes, strict=True)):
        if mode == 0:
            out += base(index)
            continue
        matrix = next(matrices)
        if mode in (2, 4):
            out += _with_bits(hole, matrix, base(index))
            continue
        assert mode == 3 or all(matrix.step_of(row) >= 2**-100 for row in range(matrix.rows))
        size = BITS[hole.dtype] // 8
        for place, d in enumerate(grid_floats(matrix)):
            if mode == 3:
                out += stored_as(hole.dtype, d)
                continue
            stored = base(index)[place * size : (place + 1) * size]
            b = number_of(hole.dtype, stored)
            total = b + d if hole.dtype == 11 else rounded(b + d)
            out += stored if d == 0 or not math.isfinite(b) else stored_as(hole.dtype, total)
    return bytes(out)


def _added(hole: Hole, base: bytes, top: int, span: int) -> list[int]:
    """Return what each element's octave adds to its class."""
    place, size, width = {1: (23, 8, 4), 16: (7, 8, 2), 10: (10, 5, 2)}[hole.dtype]
    bits = [int.from_bytes(base[at : at + width], "little") for at in range(0, len(base), width)]
    return [min(span, 11 * max(0, top - (each >> place) % (1 << size)) // 4) for each in bits]


def _with_bits(hole: Hole, matrix: Matrix, base: bytes) -> bytes:
    assert not matrix.flags & 28
    assert matrix.step == 1
    width = max(8, BITS[hole.dtype])
    assert width <= 32
    top, is_float = 1 << (width - 1), hole.dtype in (1, 10, 16, 17, 18, 19, 20)
    out = b""
    for place in range(matrix.count):
        x = int.from_bytes(base[place * width // 8 : (place + 1) * width // 8], "little")
        order = (x + top if x < top else 2 * top - 1 - x) if is_float else x
        z = matrix.integers.get(place, 0)
        order = (order + (-z if matrix.buckets and x >= top else z)) % (2 * top)
        x = (order - top if order >= top else 2 * top - 1 - order) if is_float else order
        out += x.to_bytes(width // 8, "little")
    return out


CODECS = {1: raw, 2: grid, 3: split, 4: moments, 5: lowrank, 8: adaptive, 9: integers}
"""Codecs that need no base."""
