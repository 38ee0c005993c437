from __future__ import annotations

import numpy as np
import pytest

from seed_exporter.codecs.integers import CODEC, IntegersPlan, stored
from seed_runtime.codecs import integers as decoder
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.errors import FormatError
from tests.support.streams import decode, hole, pieces_of


def test_an_integer_that_its_field_does_not_hold_is_refused() -> None:
    # -2 is the least integer of two bits, -8 is below it: the state of the symbols 0, -8, 0, 0 is found by encoding.
    matrix = QuantizedMatrix(np.array([[0, -8, 0, 0]], np.int32), 1.0)
    chunks = CODEC.encode([CODEC.prepare(None, IntegersPlan(matrix, 2, 1.0), 0)]).chunks  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="an integer of -8 has more than 2 bits"):
        decode("integers", [hole(1, dtype="uint8")], chunks)


@pytest.mark.parametrize("delay", [None, 3])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_matrices_whose_rows_end_within_bytes_decode_to_what_the_exporter_stores(
    width: int, delay: int | None, rng: np.random.Generator
) -> None:
    half = 1 << (width - 1)
    plans = []
    for rows, cols in ((12, 7), (40, 31), (8, 3)):
        bound = half if delay is None else half // 2
        integers = rng.integers(-bound, max(1, bound - 1), (rows, cols)).astype(np.int32)
        integers[3], integers[:, 2] = 0, 0
        plans.append(IntegersPlan(QuantizedMatrix(integers, 1.0, delay=delay), width, 0.5))
    if width == 2 and delay is not None:
        plans = [IntegersPlan(QuantizedMatrix(np.zeros((8, 4), np.int32), 1.0, delay=delay), width, 0.5)]
    expected = [stored(plan.matrix.multiples(), width, "uint8") for plan in plans]
    prepared = [CODEC.prepare(None, plan, 0) for plan in plans]  # type: ignore[arg-type]
    found = decode("integers", [hole(len(each), dtype="uint8") for each in expected], CODEC.encode(prepared).chunks)
    assert found == b"".join(each.tobytes() for each in expected)


def test_a_long_matrix_is_yielded_in_windows(rng: np.random.Generator) -> None:
    integers = rng.integers(-8, 8, (501, 1001)).astype(np.int32)
    integers[:, -1] = 0
    matrix = QuantizedMatrix(np.ascontiguousarray(integers[:500]), 1.0)
    chunks = CODEC.encode([CODEC.prepare(None, IntegersPlan(matrix, 4, 1.0), 0)]).chunks  # type: ignore[arg-type]
    pieces = pieces_of("integers", [hole(500 * 1001 // 2, dtype="uint8")], chunks)
    assert max(piece.nbytes for piece in pieces) <= 1 << 17
    assert b"".join(piece.tobytes() for piece in pieces) == stored(matrix.integers, 4, "uint8").tobytes()


def test_the_head_tells_which_integers_are_on_a_trellis() -> None:
    matrices = [QuantizedMatrix(np.ones((3, 4), np.int32), 1.0, delay=delay) for delay in (None, 2)]
    plans = [IntegersPlan(matrix, 8, 1.0) for matrix in matrices]
    first = CODEC.encode([CODEC.prepare(None, plan, 0) for plan in plans]).chunks[0]  # type: ignore[arg-type]
    holes = [hole(12, dtype="int8")] * 2
    assert decoder.trellises(holes, memoryview(first), "stream 0") == [False, True]


def test_integers_that_a_field_does_not_hold_are_not_stored() -> None:
    with pytest.raises(ValueError, match="from -8 to 7"):
        stored(np.array([8]), 4, "uint8")
