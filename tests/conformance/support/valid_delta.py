"""Seeds with a base: each mode of codec 7 for each type, own holes, chains."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from tests.conformance.support.seeds import DELTA, FOOTPRINT, TUNED, Options, Stream, Tensor, build, build_on, place
from tests.conformance.support.symbols import Coded, stored, table_for
from tests.conformance.support.valid_exact import SPECIALS, noise, raw
from tests.conformance.support.valid_quantized import FLOATS, numbers
from tests.conformance.support.vector import NAMES, Vector
from tests.golden import plain
from tests.golden.plain import BITS
from tests.support.delta_builder import build_delta, changed_weights
from tests.support.seed_builder import build_seed, types_of
from tests.support.spec_bytes import Matrix, Table, f32, string, u8, varint

UNCHANGED, DIFFERENCE, BITWISE, ANEW, BY_OCTAVE = range(5)
NARROW = [code for code in NAMES if BITS[code] <= 32]
"""Types whose bits may be coded as differences."""


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    yield all_codecs()
    yield replace(all_codecs(), name="delta-builder", tests="each mode of codec 7", seed=build_delta(),
                  weights=changed_weights(), bases=(all_codecs(),))  # fmt: skip
    yield from (floats(), integers())
    yield from _modes()
    yield from _arithmetic()
    yield from _octaves()
    yield from _own_holes()
    yield from _chains()
    yield from _sections()


@cache
def all_codecs() -> Vector:
    """Return the base of `delta_builder`."""
    seed = build_seed()
    decoded = plain.decode_all(seed)
    tensors = [Tensor(code, dims) for code, dims in types_of()]
    holes, _ = place([Stream(0, tensors, [], b"".join(map(decoded.hole, range(len(tensors)))))])
    tests = "a base with a stream of each codec"
    return Vector("base-all", tests, seed, model=decoded.skeleton, weights=decoded.weights, holes=holes)


@cache
def floats() -> Vector:
    """Return a base with a tensor of each float type, 3 x 4, and one of infinities, NaN, zeros and subnormals."""
    values = [0.5, -1.0, 2.0, 0.0, 1.5, -0.25, 3.0, -7.0, 100.0, 0.125, -0.0, 1e-3]
    tensors, data = [], b""
    for dtype in FLOATS:
        tensors.append(Tensor(dtype, (3, 4)))
        kind = {1: "f", 10: "e", 11: "d", 16: "f"}[dtype]
        packed = struct.pack(f"<12{kind}", *values)
        data += b"".join(packed[at + 2 : at + 4] for at in range(0, 48, 4)) if dtype == 16 else packed
    for dtype, special in SPECIALS.items():
        tensors.append(Tensor(dtype, (10,)))
        data += special
    return build("base-floats", "a base with a tensor of each float type", [raw(tensors, data)])


@cache
def integers() -> Vector:
    """Return a base with five elements of each type of at most 32 bits."""
    sizes = [(BITS[code] * 5 + 7) // 8 for code in NARROW]
    data = b"".join(noise(size, code) for code, size in zip(NARROW, sizes, strict=True))
    return build("base-types", "a base with five elements of each type", [raw([Tensor(c, (5,)) for c in NARROW], data)])


def delta(tensors: Sequence[Tensor], modes: Sequence[int], matrices: Sequence[Matrix], lanes_log2: int = 0) -> Stream:
    """Return a stream of codec 7, with a matrix for each mode that isn't 0."""
    if not matrices:
        return Stream(DELTA, tensors, [u8(0) + varint(len(modes)) + bytes(modes)])
    coded = Coded(matrices, [table_for(matrices, quantized=True)], lanes_log2, own=bytes(modes))
    return Stream(DELTA, tensors, coded.chunks(stored, stored))


def _tensors(base: Vector) -> list[Tensor]:
    return [Tensor(hole.dtype, hole.dims) for hole in base.holes]


def _modes() -> Iterator[Vector]:
    tensors = _tensors(floats())
    count = len(tensors)
    yield build_on("delta-unchanged", "codec 7 without any change", floats(), [delta(tensors, [0] * count, [])])
    for index, dtype in enumerate(FLOATS):
        for mode, name in ((DIFFERENCE, "difference"), (ANEW, "anew")):
            modes = [mode if place == index else UNCHANGED for place in range(count)]
            matrix = Matrix(numbers(3, 4, 3, dtype), 0, 0.37)
            yield build_on(
                f"delta-{name}-{NAMES[dtype]}", f"codec 7, {name}, {NAMES[dtype]}", floats(),
                [delta(tensors, modes, [matrix])],
            )  # fmt: skip
    tensors = _tensors(integers())
    for index, code in enumerate(NARROW):
        modes = [BITWISE if place == index else UNCHANGED for place in range(len(NARROW))]
        elements = 3 if BITS[code] < 8 else 5
        matrix = Matrix(numbers(1, elements, 100, code), 3, 1.0)
        yield build_on(
            f"delta-{NAMES[code]}", f"codec 7, integers added to bits, {NAMES[code]}", integers(),
            [delta(tensors, modes, [matrix])],
        )  # fmt: skip


def _arithmetic() -> Iterator[Vector]:
    tensors = _tensors(floats())
    first, special = list(range(len(FLOATS))), list(range(len(FLOATS), len(tensors)))

    def modes_of(changed: Sequence[int], mode: int) -> list[int]:
        return [mode if place in changed else UNCHANGED for place in range(len(tensors))]

    ones = [Matrix([[1, -1] * 5], 0, step) for step in (2.0**-100, 2.0**-24, 2.0**-100)]
    text = "differences to zeros, subnormal numbers, infinities and NaN, which stay"
    yield build_on("delta-specials", text, floats(), [delta(tensors, modes_of(special, DIFFERENCE), ones)])
    large = [Matrix([[600, -600] * 4 + [1, -1]], 0, step) for step in (2.0**118, 2.0**7, 2.0**118)]
    text = "differences that make sums infinite"
    yield build_on("delta-infinite", text, floats(), [delta(tensors, modes_of(special, DIFFERENCE), large)])
    wraps = [Matrix([[-1, 1, -2, 3, 1 << 20, -(1 << 20), -(1 << 31), (1 << 31) - 1, 0, 77]], 0, 1.0)] * 3
    text = "integers that pass zero, reach NaN, and exceed the type's bits"
    yield build_on("delta-order", text, floats(), [delta(tensors, modes_of(special, BITWISE), wraps)])
    shaped = [
        Matrix([[1, 0, -2, 1], [0, 0, 0, 0], [2, 1, 0, -1]], 0, 0.1, bytes([0, 3, 9]), bytes([1, 0, 1]),
               bytes([1, 1, 0, 1]), bytes([0, 8, 0, 1])),
        Matrix(numbers(3, 4, 3), 0, 0.1, row_steps=bytes([0, 5, 24])),
        Matrix(numbers(3, 4, 3), 1, 0.1, delay=2),
        Matrix([[0] * 4] * 3, 0, 0.1, row_classes=bytes(3)),
    ]  # fmt: skip
    text = "differences with steps of rows and columns, dead ones, a trellis, and nothing"
    yield build_on("delta-shaped", text, floats(), [delta(tensors, modes_of(first, DIFFERENCE), shaped, 1)])
    rows = [Matrix([[1, 0], [0, 0], [-5, 0], [3, 0], [0, 0], [9, 0]], 0, 1.0, row_classes=bytes([1, 0, 1, 1, 0, 1]),
                   col_classes=bytes([1, 0]))]  # fmt: skip
    yield build_on("delta-dead-bits", "dead rows and columns of integers added to bits", floats(),
                   [delta(tensors, modes_of([0], BITWISE), rows)])  # fmt: skip
    halves = [delta(tensors[:3], [0, 1, 0], [Matrix(numbers(3, 4, 2), 0, 0.5)])]
    halves += [raw([tensors[3]], noise(24)), delta(tensors[4:], [0, 0, 0], [])]
    yield build_on("delta-streams", "streams of codecs 7 and 1", floats(), halves)


def by_octave(
    base: Vector, hole: int, top: int, span: int, row_classes: bytes | None = None, reach: int = 3, low_bits: int = 0
) -> Matrix:
    """Return integers for a hole of a base, 3 x 4 or 1 x 10, under its octaves."""
    dtype, dims, start = base.holes[hole].dtype, base.holes[hole].dims, base.holes[hole].offset
    rows, cols = (1, 10) if len(dims) == 1 else (3, 4)
    values = numbers(rows, cols, reach, dtype)
    matrix = Matrix(values, low_bits, 1.0, row_classes=row_classes, buckets=True)
    place, bits, size = {1: (23, 8, 4), 16: (7, 8, 2), 10: (10, 5, 2)}[dtype]
    for index, (table, symbol) in enumerate(matrix.symbols):
        element = int.from_bytes(base.weights[start + index * size : start + (index + 1) * size], "little")
        octave = (element >> place) % (1 << bits)
        matrix.symbols[index] = table + min(span, 11 * max(0, top - octave) // 4), symbol
    return matrix


def _octaves() -> Iterator[Vector]:
    base = floats()
    tensors = _tensors(base)
    for hole, tensor in enumerate(tensors):
        if tensor.dtype == 11:
            continue
        top = 16 if tensor.dtype == 10 else 129
        rows = bytes([1, 3, 2]) if len(tensor.dims) == 2 else None
        matrix = by_octave(base, hole, top, 20, rows)
        modes = [BY_OCTAVE if place == hole else UNCHANGED for place in range(len(tensors))]
        tables = [table_for([matrix], quantized=True)] + [None] * 22
        chunks = Coded([matrix], tables, own=bytes([*modes, top, 20])).chunks()
        kind = "" if rows else "-specials"
        text = f"codec 7, integers added to bits under octaves and rows, {NAMES[tensor.dtype]}{kind.replace('-', ' ')}"
        yield build_on(f"delta-octaves-{NAMES[tensor.dtype]}{kind}", text, base, [Stream(DELTA, tensors, chunks)])
    first, second = by_octave(base, 0, 128, 2), by_octave(base, 3, 0, 0)
    modes = [BY_OCTAVE, UNCHANGED, DIFFERENCE, BY_OCTAVE] + [UNCHANGED] * (len(tensors) - 4)
    matrices = [first, Matrix(numbers(3, 4, 3), 0, 0.25), second]
    flat, steep = table_for(matrices, quantized=True), Table(253, [100, 200, 500, 2396, 500, 300, 100], 0)
    chunks = Coded(matrices, [flat, steep, None], own=bytes([*modes, 128, 2, 0, 0])).chunks()
    yield build_on(
        "delta-octaves-mixed", "octaves in some matrices of a stream", base, [Stream(DELTA, tensors, chunks)]
    )
    near, far = by_octave(base, 0, 120, 0, reach=9000, low_bits=2), by_octave(base, 3, 120, 0, reach=1 << 19)
    modes = [BY_OCTAVE, UNCHANGED, DIFFERENCE, BY_OCTAVE] + [UNCHANGED] * (len(tensors) - 4)
    matrices = [near, Matrix(numbers(3, 4, 200), 0, 0.25), far]
    chunks = Coded(matrices, [table_for(matrices, quantized=True)], own=bytes([*modes, 120, 0, 120, 0])).chunks()
    text = "buckets of many bits, low bits below them, and escapes, in some matrices of a stream"
    yield build_on("delta-octaves-far", text, base, [Stream(DELTA, tensors, chunks)])


def _own_holes() -> Iterator[Vector]:
    base = floats()
    tensors = _tensors(base)
    order = [5, 0, 2]
    mine = [tensors[place] for place in order] + [Tensor(1, (2, 2))]
    names = [f"t{place}" for place in order] + ["new"]
    modes = [BITWISE, DIFFERENCE, UNCHANGED, ANEW]
    matrices = [Matrix([[1] * 10], 0, 1.0), Matrix(numbers(3, 4, 2), 0, 0.25), Matrix([[1, 2], [3, -4]], 0, 0.5)]
    text = "a skeleton and holes of its own: three of the base's in another order, and a new one"
    yield build_on("delta-own-holes", text, base, [delta(mine, modes, matrices)], names=names)
    text = "holes of its own, of which two have the same name: both are the base's one hole"
    twice = [tensors[0], tensors[0]]
    yield build_on("delta-own-twice", text, base,
                   [delta(twice, [0, 1], [Matrix(numbers(3, 4, 2), 0, 0.25)])], names=["t0", "t0"])  # fmt: skip
    text = "holes of its own that are no holes of the base, which codec 7 codes anew"
    yield build_on("delta-own-new", text, base,
                   [delta([Tensor(1, (4, 3))], [ANEW], [Matrix(numbers(4, 3, 2), 0, 0.25)])], names=["t0"])  # fmt: skip


def _chains() -> Iterator[Vector]:
    base = floats()
    tensors = _tensors(base)

    def step(name: str, on: Vector, seed: int) -> Vector:
        modes = [DIFFERENCE] + [UNCHANGED] * (len(tensors) - 1)
        stream = delta(tensors, modes, [Matrix(numbers(3, 4, 2, seed), 0, 0.25)])
        return build_on(name, f"the seed number {len(on.bases) + 1} on top of the first", on, [stream])

    second = step("delta-chain-1", base, 5)
    third = step("delta-chain-2", second, 6)
    yield from (second, third)
    # 32 links would be as many files: one more than there may be is among the hostile ones.
    yield step("delta-chain-3", third, 7)


def _sections() -> Iterator[Vector]:
    tensors = _tensors(floats())
    stream = delta(tensors, [0] * len(tensors), [])
    for name, tests, payload in (
        ("tuned", "the record of a fine-tune with scores", string("small") + string("accuracy") + f32(0.5, -0.75)),
        ("tuned-unscored", "the record of a fine-tune without scores", string("bn") + string("")),
    ):
        yield build_on(f"delta-{name}", tests, floats(), [stream], Options(sections={TUNED: payload}))
    mode = string("lean") + varint(20) + varint(1)
    footprint = {FOOTPRINT: varint(0) + varint(1) + varint(1) + mode + varint(16)}
    yield build_on("delta-footprint", "a footprint of its own", floats(), [stream], Options(sections=footprint))
