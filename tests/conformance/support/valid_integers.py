"""Seeds of codec 9: valid ones, and integers that their bytes don't hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.conformance.support.hostile import DAMAGED
from tests.conformance.support.seeds import INTEGERS, Stream, Tensor, build
from tests.conformance.support.symbols import Coded, table_for
from tests.conformance.support.valid_exact import raw
from tests.conformance.support.valid_quantized import numbers
from tests.conformance.support.vector import Vector
from tests.support.spec_bytes import Matrix, Table

UINT8, INT8, INT4 = 2, 3, 22


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    for width, reach in ((2, 1), (4, 7), (8, 127)):
        stream = integers([Matrix(numbers(6, 4, reach, width), 0, 1.0)], [width], lanes_log2=1)
        yield build(f"integers-{width}-bits", f"codec integers, fields of {width} bits in uint8", [stream])
    signed = integers([Matrix(numbers(5, 3, 127), 0, 1.0)], [8], (INT8,))
    yield build("integers-int8", "codec integers, int8", [signed])
    ends = [Matrix([row], 0, 1.0) for row in ([-2, 1, 0, -1], [-8, 7], [-128, 127], [-128, 127])]
    stream = integers(ends, [2, 4, 8, 8], (UINT8, UINT8, UINT8, INT8))
    yield build("integers-ends", "the least and largest integers of each width; -128 is an escape", [stream])
    values = numbers(4, 6, 1)
    for name, rows, cols in (
        ("rows", bytes([0, 1, 0, 1]), None),
        ("columns", None, bytes([0, 1, 1, 0, 1, 1])),
        ("all", bytes(4), None),
    ):
        matrices = [Matrix(values, 0, 1.0, row_classes=rows, col_classes=cols) for _ in range(3)]
        yield build(f"integers-dead-{name}", "dead elements are 0, as any integer", [integers(matrices, [2, 4, 8])])
    # 5 columns: a row ends within a byte, and so do the symbols of a stream with one of 3 x 4 before it.
    odd = [Matrix(numbers(3, 4, 7), 0, 1.0), Matrix(numbers(4, 5, 1, 3), 0, 1.0)]
    yield build("integers-odd-rows", "rows that end within a byte", [integers(odd, [4, 2])])
    low = Matrix(numbers(4, 5, 90), 3, 1.0)
    yield build("integers-low-bits", "integers with low bits", [integers([low], [8], (INT8,))])
    escaped = Matrix([[1, 0, 2, -1]], 2, 1.0)
    yield build("integers-4-low-bits", "fields of 4 bits with low bits", [integers([escaped], [4])])
    for width, reach in ((4, 3), (8, 60)):
        path = Matrix(numbers(6, 8, reach), 0, 1.0, delay=3)
        yield build(f"integers-trellis-{width}", f"{width} bits on a trellis", [integers([path], [width])])
    other = Stream(INTEGERS, [Tensor(INT8, (2, 3, 4))], integers([Matrix(numbers(6, 4, 9), 0, 1.0)], [8]).chunks)
    yield build("integers-other-shape", "a matrix of other rows and columns than its tensor", [other])
    yield from _wrong()


def integers(
    matrices: Sequence[Matrix], widths: Sequence[int], dtypes: Sequence[int] = (UINT8,), lanes_log2: int = 0
) -> Stream:
    """Return a stream of codec 9; a tensor has one axis."""
    coded = Coded(matrices, [table_for(matrices, quantized=True)], lanes_log2, bytes(widths))
    types = [dtypes[index % len(dtypes)] for index in range(len(matrices))]
    counts = [
        len(matrix.values) * len(matrix.values[0]) * width for matrix, width in zip(matrices, widths, strict=True)
    ]
    tensors = [Tensor(dtype, (count // 8,)) for dtype, count in zip(types, counts, strict=True)]
    return Stream(INTEGERS, tensors, coded.chunks())


def _wrong() -> Iterator[Vector]:
    flat = [Table(248, [256] * 16, 0)]
    for width, far in ((2, 2), (2, -3), (4, 8), (4, -9)):
        coded = Coded([Matrix([[0, far, 0, 0]], 0, 1.0)], [Table(240, [128] * 32, 0)], 0, bytes([width]))
        stream = Stream(INTEGERS, [Tensor(UINT8, (width // 2,))], coded.chunks(), bytes(width // 2))
        yield _bad(f"far-{width}-{'below' if far < 0 else 'above'}", f"{far} in {width} bits", stream)
    for far in (128, -129):
        matrix = Matrix([[0, far]], 0, 1.0)
        coded = Coded([matrix], [table_for([matrix], quantized=True)], 0, bytes([8]))
        stream = Stream(INTEGERS, [Tensor(INT8, (2,))], coded.chunks(), bytes(2))
        yield _bad(f"far-8-{'below' if far < 0 else 'above'}", f"{far} in int8", stream)
    coded = Coded([Matrix([[1, 0]], 0, 1.0)], flat, 0, bytes([4]))
    yield _bad("int8-4", "fields of 4 bits in int8", Stream(INTEGERS, [Tensor(INT8, (1,))], coded.chunks(), bytes(1)))
    yield _bad("int4", "a hole of int4", Stream(INTEGERS, [Tensor(INT4, (2,))], coded.chunks(), bytes(1)))
    yield _bad("float", "a hole of float32", Stream(INTEGERS, [Tensor(1, (1,))], coded.chunks(), bytes(4)))


def _bad(name: str, tests: str, stream: Stream) -> Vector:
    before = raw([Tensor(UINT8, (4,))], b"\1\2\3\4")
    return Vector(f"bad-integers-{name}", f"codec 9: {tests}", build("", "", [before, stream]).seed, DAMAGED)
