"""Valid seeds of the codecs that quantize: grid, moments and lowrank."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from tests.conformance.support import packings
from tests.conformance.support.seeds import GRID, LOWRANK, MOMENTS, Stream, Tensor, build
from tests.conformance.support.symbols import Coded, Pack, stored, table_for
from tests.conformance.support.valid_exact import noise, raw_chunk
from tests.conformance.support.vector import NAMES, Vector
from tests.golden.plain import BITS
from tests.support.spec_bytes import Matrix, Table, f32, u8, varint

FLOATS = (1, 10, 11, 16)
"""The types that these codecs decode."""


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    yield from _grid()
    yield from _trellis()
    yield from _tables()
    yield from _planes()
    yield from _moments()
    yield from _lowrank()


def grid(
    matrices: Sequence[Matrix],
    dtypes: Sequence[int] = (1,),
    tables: Sequence[Table | None] | None = None,
    lanes_log2: int = 0,
    pack_head: Pack = stored,
    pack_plane: Pack = stored,
) -> Stream:
    """Return a stream of codec 2; a tensor has the rows and columns of its matrix."""
    coded = Coded(matrices, tables or [table_for(matrices, quantized=True)], lanes_log2)
    types = [dtypes[index % len(dtypes)] for index in range(len(matrices))]
    tensors = [
        Tensor(dtype, (len(matrix.values), len(matrix.values[0])))
        for dtype, matrix in zip(types, matrices, strict=True)
    ]
    return Stream(GRID, tensors, coded.chunks(pack_head, pack_plane))


def numbers(rows: int, cols: int, reach: int, rng_seed: int = 1) -> list[list[int]]:
    """Return integers from -reach to reach."""
    words = struct.unpack(f"<{rows * cols}I", noise(4 * rows * cols, rng_seed))
    values = [word % (2 * reach + 1) - reach for word in words]
    return [values[start : start + cols] for start in range(0, len(values), cols)]


def _grid() -> Iterator[Vector]:
    for dtype in FLOATS:
        matrix = Matrix(numbers(3, 4, 5, dtype), 0, 0.37)
        yield build(f"grid-{NAMES[dtype]}", f"codec grid, {NAMES[dtype]}", [grid([matrix], (dtype,))])
    matrix = Matrix([[2]], 0, 0.5)
    stream = replace(grid([matrix]), tensors=[Tensor(1, ())])
    yield build("grid-scalar", "codec grid, rank 0", [stream])
    # Halves of the last place: 2049 and 2051 in float16, 257 and 259 in bfloat16.
    ties = Matrix([[2049, 2051, 257, 259, -2049, -257, 1, 3]], 8, 1.0)
    yield build("grid-ties", "ties go to the even number, in float16 and bfloat16", [grid([ties, ties], (10, 16))])
    large = Matrix([[70000, -70000, 65519, 65520, 65504]], 12, 1.0)
    yield build("grid-overflow", "float16: what is too large becomes infinite", [grid([large], (10,))])
    small = Matrix([[1, 3, -1, 2, 5, 6]], 0, 2.0**-25)
    yield build("grid-subnormal", "float16: subnormal results, ties among them", [grid([small], (10,))])
    least = Matrix([[1, -1, 3, 0]], 0, 2.0**-126)
    yield build("grid-least-step", "the smallest step", [grid([least])])
    most = Matrix([[3, -3, 1, 0]], 0, 3e38)
    yield build("grid-infinite", "a product beyond float32 becomes infinite", [grid([most])])
    exact = Matrix([[(1 << 24) + 1, (1 << 24) + 3, -(1 << 31), (1 << 31) - 1]], 24, 0.1)
    text = "24 low bits; integers that float32 rounds, to even on ties; the step is rounded to float32, too"
    yield build("grid-24-low-bits", text, [grid([exact])])
    wide = Matrix([[0, 1, -1, 130, -128, -129, 40000, -(1 << 31), (1 << 31) - 1, 127, -127]], 0, 1.0)
    yield build("grid-escapes", "escapes of both signs; -128 is one, too", [grid([wide])])
    wraps = Matrix([[0, 1000, 3]], 2, 1.0)
    wraps.escaped[0] = (1 << 30) + 7
    yield build("grid-escape-wraps", "an escape times 2^low_bits is taken modulo 2^32", [grid([wraps])])
    values = numbers(4, 5, 9)
    for name, text, rows, cols in (
        ("rows", "dead rows", bytes([0, 1, 0, 1]), None),
        ("columns", "dead columns", None, bytes([0, 1, 1, 0, 1])),
        ("both", "dead rows and dead columns", bytes([1, 0, 0, 1]), bytes([1, 0, 1, 1, 0])),
        ("all-rows", "all rows are dead: no data chunk", bytes(4), None),
        ("all-columns", "all columns are dead, and rows have a class without a table", bytes([200] * 4), bytes(5)),
    ):
        matrix = Matrix(values, 1, 0.25, row_classes=rows, col_classes=cols)
        yield build(f"grid-dead-{name}", text, [grid([matrix])])
    dead, live = Matrix(values, 1, 0.25, row_classes=bytes(4)), Matrix(values, 1, 0.25)
    yield build("grid-dead-between", "a dead matrix between two others", [grid([live, dead, live])])
    steps = Matrix(numbers(4, 3, 4), 0, 0.1, row_steps=bytes([0, 7, 8, 100]))
    yield build("grid-row-steps", "steps of rows: eighths of an octave, rounded to float32", [grid([steps])])
    steps = Matrix(numbers(3, 3, 4), 0, 3e38, row_steps=bytes([0, 255, 0]), row_classes=bytes([1, 0, 1]))
    yield build("grid-row-steps-dead", "a dead row may have a step beyond float32", [grid([steps])])
    steps = Matrix(numbers(3, 4, 4), 0, 0.1, col_steps=bytes([0, 7, 100, 8]))
    yield build("grid-column-steps", "steps of columns: eighths of an octave", [grid([steps])])
    # 2^20 + 1 and more have more digits than a product by 1.875 keeps; the second multiplication rounds again.
    steps = Matrix([[(1 << 21) + 1, (1 << 23) - 1, 5], [-(1 << 22) - 3, 1 << 30, 7]], 24, 0.1, bytes([3, 0]))
    steps.col_steps = bytes([7, 13, 255])
    text = "steps of rows and columns: the column's factor first, each product rounded to float32"
    yield build("grid-both-steps", text, [grid([steps])])
    steps = Matrix([[1, -1, 2]], 0, 1e30, col_steps=bytes([255, 255, 0]), col_classes=bytes([0, 1, 1]))
    text = "a column's step may be beyond float32: of a dead one without effect, else its weights are infinite"
    yield build("grid-column-steps-infinite", text, [grid([steps])])
    text = "a matrix of other rows and columns than its tensor: 6 x 2 for 3 x 4"
    yield build(
        "grid-other-shape", text, [replace(grid([Matrix(numbers(6, 2, 3), 0, 0.5)]), tensors=[Tensor(1, (3, 4))])]
    )


def _trellis() -> Iterator[Vector]:
    values = numbers(9, 7, 6)
    for dtype in FLOATS:
        stream = grid([Matrix(numbers(6, 8, 5, dtype), 0, 0.37, delay=3)], (dtype,))
        yield build(f"trellis-{NAMES[dtype]}", f"codec grid with a trellis, {NAMES[dtype]}", [stream])
    for delay, text in (
        (1, "one element"),
        (7, "a row"),
        (9, "more than a row"),
        (63, "as many elements as there are"),
    ):
        stream = grid([Matrix(values, 0, 0.5, delay=delay)], lanes_log2=1)
        yield build(f"trellis-delay-{delay}", f"a trellis with a delay of {text}", [stream])
    plain, three, ten = (Matrix(values, 0, 0.5, delay=delay) for delay in (None, 3, 10))
    text = "matrices with a trellis, one without, and one with another delay: each begins in the state 0"
    yield build("trellis-many", text, [grid([three, three, plain, ten, three])])
    sides = bytes([1, 0, 0, 1, 1, 0, 2, 1, 1]), bytes([0, 1, 1, 0, 1, 1, 0])
    tables: list[Table | None] = [table_for([three], quantized=True), None]
    for delay in (1, 5, 20):
        dead = Matrix(values, 0, 0.5, row_classes=sides[0], col_classes=sides[1], delay=delay)
        dead.row_steps, dead.col_steps = bytes([3, 255, 255, 0, 9, 255, 12, 1, 2]), bytes([255, 1, 2, 255, 8, 3, 255])
        text = f"dead elements take places on a trellis, delay {delay}; their rows and columns may have any step"
        yield build(f"trellis-dead-{delay}", text, [grid([dead], tables=tables)])
    dead = Matrix(values, 0, 0.5, row_classes=bytes(9), delay=1)
    yield build("trellis-all-dead", "a trellis of dead rows alone, between two others", [grid([three, dead, ten])])
    low = [Matrix(numbers(6, 8, reach), bits, 0.5, delay=2) for bits, reach in ((3, 50), (9, 5000), (17, 9 << 17))]
    text = "a trellis with low bits, of which the lowest one is the parity"
    yield build("trellis-low-bits", text, [grid(low)])
    wide = Matrix([[1, 130, -1, -129, 131, -128, 40000, -(1 << 31), (1 << 31) - 1, 1 << 30, 3, -1]], 0, 1.0, delay=1)
    yield build("trellis-escapes", "escapes on a trellis; doubled, they are taken modulo 2^32", [grid([wide])])
    wraps = Matrix([[1, 1000, 3, 5, 7]], 2, 1.0, delay=1)
    wraps.escaped[0] = (1 << 30) + 7
    text = "the sign of an escape times 2^low_bits is that of its value modulo 2^32"
    yield build("trellis-escape-wraps", text, [grid([wraps])])
    exact = Matrix([[(1 << 23) + 1, (1 << 23) + 3, 5, -(1 << 24) - 1, -(1 << 25) - 3, 7]], 24, 0.1, delay=1)
    text = "values on a trellis that float32 rounds, to even on ties"
    yield build("trellis-24-low-bits", text, [grid([exact])])


def _tables() -> Iterator[Vector]:
    values = numbers(3, 4, 2)
    flat = Table(254, [800, 800, 896, 800, 800], 0)
    steep = Table(254, [1, 10, 4000, 80, 5], 0)
    classes = bytes([1, 2, 3]), bytes([1, 2, 1, 1])
    matrix = Matrix(values, 0, 0.5, row_classes=classes[0], col_classes=classes[1])
    text = "classes of rows and of columns add up; two classes share the table of the one before"
    yield build("classes", text, [grid([matrix], tables=[flat, None, steep, None])])
    tables: list[Table | None] = [flat, *[None] * 254, steep]
    matrix = Matrix(values, 0, 0.5, row_classes=bytes([255, 1, 2]), col_classes=bytes([2, 1, 1, 1]))
    yield build("classes-256", "as many classes as there may be", [grid([matrix], tables=tables)])
    tables = [flat, None, *[steep, flat] * 31, steep, None]
    matrix = Matrix(values, 0, 0.5, row_classes=bytes([66, 1, 2]))
    yield build(
        "tables-64", "as many tables as there may be, with classes that share some", [grid([matrix], tables=tables)]
    )
    every = Table(0x81, [16] * 255, 16)
    matrix = Matrix([list(range(-127, 128))], 0, 1.0)
    text = "all 255 symbols, listed from 81h on and across 0, and an escape that does not occur"
    yield build("table-wraps", text, [grid([matrix], tables=[every], lanes_log2=2)])
    zeros = Table(254, [0, 0, 4095, 0, 1, 0], 0)
    yield build(
        "table-zeros", "frequencies of 0 within the list", [grid([Matrix([[0, 0, 2]], 0, 1.0)], tables=[zeros])]
    )
    for lanes_log2 in (1, 3, 7):
        matrix = Matrix(numbers(10, 10, 20), 0, 0.5)
        text = f"{1 << lanes_log2} lanes for 100 symbols"
        yield build(f"lanes-{1 << lanes_log2}", text, [grid([matrix], lanes_log2=lanes_log2)])
    # 8,193 symbols in one lane would be one step more than there may be.
    matrix = Matrix([[0] * 8192], 0, 1.0)
    yield build(
        "steps-8192", "as many steps of a lane as a chunk may have", [grid([matrix], tables=[Table(0, [4095], 1)])]
    )


def _packed(data: bytes) -> tuple[int, bytes]:
    return packings.DEFLATE, packings.deflate_fixed(data)


def _planes() -> Iterator[Vector]:
    small = [Matrix(numbers(3, 5, reach), bits, 0.5) for bits, reach in ((3, 50), (0, 5), (9, 5000), (17, 9 << 17))]
    text = "planes of small matrices, joined by position: 3, 0, 9 and 17 low bits"
    yield build("planes-joined", text, [grid(small)])
    # 64 x 64 elements are one too many to be joined, 4,095 are not.
    large = Matrix([[(i * j) % 8 for j in range(64)] for i in range(64)], 2, 0.5)
    most = Matrix([[(i + j) % 4 for j in range(63)] for i in range(65)], 1, 0.5)
    text = (
        "a matrix of 4,096 elements, whose planes are its own and come last, and one of 4,095, whose planes are joined"
    )
    yield build("planes-alone", text, [grid([large, small[0], most], lanes_log2=1, pack_plane=_packed)])
    dead = Matrix([[1] * 64 for _ in range(64)], 1, 0.5, row_classes=bytes([0] + [1] * 63))
    text = "64 x 64 elements with a dead row are a small matrix: live elements count"
    yield build("planes-dead", text, [grid([dead, small[0]], pack_plane=_packed)])
    text = "head and planes are packed with deflate"
    yield build("planes-deflate", text, [grid(small[:2], pack_head=_packed, pack_plane=_packed)])
    matrix = Matrix([list(packings.TEXT)], 8, 1.0)
    stream = grid([matrix], pack_plane=lambda data: (packings.LZMA, packings.LZMA_TEXT))
    yield build("planes-lzma", "a byte plane is packed with LZMA", [stream])
    # Five elements take five of a byte's bits; the others are ignored.
    matrix = Matrix([[1, 0, 1, 1, 0]], 1, 1.0)
    stream = grid([matrix], pack_plane=lambda data: (0, bytes([data[0] | 0xE0])))
    yield build("planes-unused-bits", "unused bits of a bit plane are ignored", [stream])


def moments(
    records: Sequence[tuple[int, int, int, float, float, float]],
    tensors: Sequence[Tensor],
    halves: Sequence[Sequence[float]],
    width: int = 2,
) -> Stream:
    """Return a stream of codec 4: columns, components, seed, mean, deviation and threshold of each tensor."""
    head = b"".join(b"".join(map(varint, record[:3])) + f32(*record[3:]) for record in records)
    data = b"".join(struct.pack(f"<{len(values)}e", *values) for values in halves)
    return Stream(MOMENTS, tensors, [u8(0) + varint(len(head)) + head, raw_chunk(data, width)])


def _moments() -> Iterator[Vector]:
    values = [0.5, -0.25, 1.0, 0.75, -1.5, 0.125]
    for dtype in FLOATS:
        halves = [*values[:4], *values, *values[:2], 0.3, 0.7, -0.9, 2.0, 1.1, -0.1]
        stream = moments([(4, 2, 9, 0.01, 0.2, 0.05)], [Tensor(dtype, (3, 4))], [halves])
        text = f"codec moments, {NAMES[dtype]}: two components, noise, a threshold"
        yield build(f"moments-{NAMES[dtype]}", text, [stream])
    stream = moments([(3, 0, 0, 0.0, 0.0, 0.0)], [Tensor(1, (2, 3))], [values[:3]])
    yield build("moments-mean-alone", "no components, no noise: every row is the mean row", [stream])
    stream = moments([(3, 0, 1, 0.25, 0.0, 0.0)], [Tensor(1, (2, 3))], [[0.0, -0.0, 1.0]])
    yield build("moments-mean-of-noise", "a deviation of 0: the noise is its mean", [stream])
    stream = moments([(3, 0, 1, 0.0, 0.0, 2.0**-64)], [Tensor(1, (1, 3))], [[-0.0, 0.0, 1.0]])
    yield build("moments-negative-zero", "-0.0 is below the threshold and becomes +0.0", [stream])
    stream = moments([(3, 0, 1, 0.0, 0.0, 0.0)], [Tensor(1, (1, 3))], [[-0.0, 0.0, 1.0]])
    yield build("moments-negative-zero-kept", "with a threshold of 0, -0.0 stays", [stream])
    stream = moments([(3, 0, 1, 0.0, 0.0, 1.0)], [Tensor(1, (1, 3))], [[1.0, 0.9995, -1.0]])
    yield build("moments-at-threshold", "a weight of the threshold's magnitude stays", [stream])
    records = [(2, 1, (1 << 32) - 1, 0.0, 1.0, 0.0), (3, 0, 7, 0.0, 2.0**-64, 0.0)]
    tensors = [Tensor(1, (2, 2)), Tensor(10, (1, 3))]
    stream = moments(records, tensors, [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 1.0, 2.0]], 1)
    yield build("moments-two-holes", "two holes, each with a seed and numbers of its own", [stream])


def lowrank(factors: Sequence[tuple[Matrix, Matrix, bytes]], tensors: Sequence[Tensor], lanes_log2: int = 0) -> Stream:
    """Return a stream of codec 5: V, U and the shifts of each tensor."""
    own = b"".join(varint(len(v.values[0])) + varint(len(shifts)) + shifts for v, _, shifts in factors)
    matrices = [matrix for v, u, _ in factors for matrix in (v, u)]
    coded = Coded(matrices, [table_for(matrices, quantized=True)], lanes_log2, own)
    for (v, u, _), tensor in zip(factors, tensors, strict=True):
        assert len(v.values[0]) * len(u.values) == prod(tensor.dims)
        assert BITS[tensor.dtype] >= 16
    return Stream(LOWRANK, tensors, coded.chunks())


def _lowrank() -> Iterator[Vector]:
    v, u = Matrix(numbers(2, 4, 5), 0, 0.25), Matrix(numbers(3, 2, 9, 2), 1, 0.3)
    for dtype in FLOATS:
        stream = lowrank([(v, u, bytes([0, 2]))], [Tensor(dtype, (3, 2, 2))], 1)
        yield build(f"lowrank-{NAMES[dtype]}", f"codec lowrank, {NAMES[dtype]}, shifts 0 and 2", [stream])
    pair = Matrix([[1, -1], [1, -1]], 0, 1.0), Matrix([[3, -3], [-3, 3], [0, 0]], 0, 1.0)
    stream = lowrank([(*pair, bytes(2))], [Tensor(1, (3, 2))])
    yield build("lowrank-zeros", "sums that cancel out, and 0 times a negative number, are +0.0", [stream])
    one = Matrix([[1]], 0, 2.0**-100)
    yield build(
        "lowrank-scalar", "rank 1 of a scalar", [lowrank([(one, Matrix([[1]], 0, 1.0), b"\0")], [Tensor(1, ())])]
    )
    v = Matrix([[1, -1, 0]], 0, 1.0)
    u = Matrix([[1], [-1]], 0, 0.5)
    yield build("lowrank-shift-23", "the largest shift", [lowrank([(v, u, bytes([23]))], [Tensor(1, (2, 3))])])
    most = Matrix([[(1 << 24) - 1, -(1 << 24) + 1]], 20, 1.0)
    stream = lowrank([(most, u, b"\0")], [Tensor(1, (2, 2))])
    yield build("lowrank-largest-sum", "sums of 2^24 - 1, the largest there may be", [stream])
    v = Matrix(numbers(2, 3, 5), 2, 0.5, col_classes=bytes([1, 0, 1]), row_classes=bytes([1, 1]))
    u = Matrix(numbers(4, 2, 5), 0, 0.1, bytes([0, 12, 3, 255]), bytes([1, 1, 0, 0]))
    stream = lowrank([(v, u, bytes([1, 0]))], [Tensor(1, (4, 3))])
    yield build("lowrank-dead", "a dead column of V, dead rows of U, and steps of rows", [stream])
    v = Matrix(numbers(2, 4, 5), 2, 0.5, col_classes=bytes([1, 0, 1, 1]), col_steps=bytes([9, 255, 0, 31]))
    stream = lowrank([(v, Matrix(numbers(3, 2, 5), 0, 0.1, bytes([0, 12, 3])), bytes([1, 0]))], [Tensor(1, (3, 4))])
    yield build("lowrank-column-steps", "steps of V's columns, of which one is dead, and of U's rows", [stream])
    first = Matrix([[1, 2]], 0, 1.0), Matrix([[300], [2]], 0, 1.0), b"\0"
    second = Matrix([[-1, 2], [4, 0]], 0, 1.0), Matrix([[1, 2], [3, -500]], 1, 1.0), bytes([1, 0])
    stream = lowrank([first, second], [Tensor(10, (2, 2)), Tensor(16, (4,))])
    yield build("lowrank-two-holes", "two holes, with escapes", [stream])
