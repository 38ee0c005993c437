"""Valid seeds of codec 8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.conformance.support.seeds import ADAPTIVE, Stream, Tensor, build
from tests.conformance.support.valid_quantized import FLOATS, numbers
from tests.conformance.support.vector import NAMES, Vector
from tests.support.adaptive_bytes import AdaptiveMatrix, chunks


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    for dtype in FLOATS:
        matrix = AdaptiveMatrix(numbers(3, 4, 5, dtype), 0.37)
        yield build(f"adaptive-{NAMES[dtype]}", f"codec adaptive, {NAMES[dtype]}", [adaptive([matrix], (dtype,))])
    yield from _extents()
    yield from _steps()
    sparse = [[value * (place % 3 == 0) for place, value in enumerate(row)] for row in numbers(40, 45, 3)]
    text = "some hundred elements in a wave at most, in 8 lanes: weights move, and counts are halved"
    yield build("adaptive-long", text, [adaptive([AdaptiveMatrix(sparse, 0.1, taps=9, width=3)] * 2, lanes_log2=3)])


def adaptive(
    matrices: Sequence[AdaptiveMatrix], dtypes: Sequence[int] = (1,), lanes_log2: int = 0, data: bytes | None = None
) -> Stream:
    """Return a stream of codec 8; a tensor has the rows and columns of its matrix."""
    tensors = [
        Tensor(dtypes[index % len(dtypes)], (len(matrix.values), len(matrix.values[0])))
        for index, matrix in enumerate(matrices)
    ]
    return Stream(ADAPTIVE, tensors, chunks(matrices, lanes_log2), data)


def _extents() -> Iterator[Vector]:
    values = numbers(6, 12, 2)
    for name, text, matrix in (
        ("scalar", "one element", AdaptiveMatrix([[2]])),
        ("row", "one row", AdaptiveMatrix([values[0]])),
        ("column", "one column", AdaptiveMatrix([row[:1] for row in values])),
        ("one-channel", "one channel of nine taps", AdaptiveMatrix([row[:9] for row in values], taps=9, width=3)),
        ("kernel", "channels of six taps, two in a row", AdaptiveMatrix(values, taps=6, width=2)),
        ("narrow-kernel", "channels of four taps, one in a row", AdaptiveMatrix(values, taps=4, width=1)),
    ):
        yield build(f"adaptive-{name}", f"codec adaptive, {text}", [adaptive([matrix])])
    zeroed = [
        [value * (row != 2 and col not in (3, 4, 5)) for col, value in enumerate(values[row])] for row in range(6)
    ]
    for name, text, matrix in (
        ("rows", "a dead row", AdaptiveMatrix(zeroed, live_rows=213)),
        ("channels", "a dead channel of three taps", AdaptiveMatrix(zeroed, taps=3, width=3, live_channels=192)),
        ("both", "dead rows and channels", AdaptiveMatrix(zeroed, taps=3, live_rows=1, live_channels=255)),
        ("none", "rows and channels that may be dead and live", AdaptiveMatrix([[1] * 4] * 3, 1.0, 1, 2, 128, 128)),
        ("all", "nothing lives", AdaptiveMatrix([[0] * 4] * 3, live_rows=1)),
    ):
        yield build(f"adaptive-dead-{name}", f"codec adaptive, {text}", [adaptive([matrix])])
    dead, live = AdaptiveMatrix([[0] * 4] * 3, live_channels=1), AdaptiveMatrix(values, 0.25)
    text = "codec adaptive, matrices of several shapes in one stream, a dead one among them"
    several = [live, dead, AdaptiveMatrix(values, 0.25, taps=4), AdaptiveMatrix([[3, -1]], 0.5)]
    yield build("adaptive-several", text, [adaptive(several, FLOATS, lanes_log2=2)])
    text = "a matrix of other rows and columns than its tensor: 6 x 12 for 8 x 9"
    yield build("adaptive-other-shape", text, [replace(adaptive([live]), tensors=[Tensor(1, (8, 9))])])


def _steps() -> Iterator[Vector]:
    values = numbers(4, 5, 4)
    both = AdaptiveMatrix(values, 0.1, row_steps=bytes([0, 7, 8, 100]), col_steps=bytes([0, 7, 100, 8, 1]))
    yield build("adaptive-steps", "codec adaptive, steps of rows and of columns", [adaptive([both, both])])
    far = AdaptiveMatrix([[15, -15, 14, -14], [(1 << 31) - 1, 1 - (1 << 31), 300, 0]], 0.5)
    yield build("adaptive-escapes", "magnitudes of 15 and more, the largest among them", [adaptive([far, far])])
    trellis = AdaptiveMatrix([[*row[:2], 0, *row[3:]] for row in values], 0.5, live_channels=200, delay=3)
    text = "codec adaptive, with a trellis that counts dead columns"
    yield build("adaptive-trellis", text, [adaptive([trellis, replace(trellis, delay=1)])])
