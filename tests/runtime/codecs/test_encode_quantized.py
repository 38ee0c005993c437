"""The door through which every kind of rounding comes: integers with steps of their rows and classes of their own."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from seed_runtime.codecs.encode import grid, symbols
from seed_runtime.codecs.encode.contexts import Classes, magnitude_classes
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.tables import Tables
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.codecs.trellis import Trellis
from tests.support.streams import decode, hole


@pytest.fixture
def integers(rng: np.random.Generator) -> np.ndarray:
    found = np.rint(rng.laplace(0, 4, (40, 30))).astype(np.int32)
    found[7], found[:, 3], found[1, 1] = 0, 0, 4000  # a row and a column of zeros, and an escape
    return found


def decoded(*matrices: QuantizedMatrix) -> list[np.ndarray]:
    stream = symbols.encode([grid.matrix_of(matrix) for matrix in matrices])
    data = decode("grid", [hole(*matrix.integers.shape) for matrix in matrices], stream.chunks)
    flat, found = np.frombuffer(data, "<f4"), []
    for matrix in matrices:
        size = matrix.integers.size
        found.append(flat[:size].reshape(matrix.integers.shape))
        flat = flat[size:]
    return found


def test_steps_of_rows_are_decoded_as_the_matrix_says(integers: np.ndarray, rng: np.random.Generator) -> None:
    matrix = QuantizedMatrix(integers, 0.03, row_steps=rng.integers(0, 30, 40).astype(np.uint8))
    other = QuantizedMatrix(integers, 0.5)
    for back, made in zip(decoded(matrix, other), (matrix, other), strict=True):
        assert back.tobytes() == made.values().tobytes()
    # Code 8 is one octave, 12 an octave and a half: 2 and 3 times the step.
    steps = QuantizedMatrix(np.ones((3, 1), np.int32), 0.5, row_steps=np.array([0, 8, 12], np.uint8))
    assert decoded(steps)[0].ravel().tolist() == [0.5, 1.0, 1.5]


def test_rounding_in_place_gives_the_same_integers_and_allocates_one_window(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((300, 1000)).astype(np.float32)
    expected = grid.round_to_nearest(weights, 0.03)
    tracemalloc.start()
    found = grid.round_in_place(weights, 0.03)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found.integers, expected.integers)
    assert np.shares_memory(found.integers, weights)
    assert peak < 1.2 * weights.nbytes  # 2**17 elements twice, of 300,000


@pytest.mark.parametrize("with_rows", [False, True])
def test_steps_of_columns_are_decoded_as_the_matrix_says(
    with_rows: bool, integers: np.ndarray, rng: np.random.Generator
) -> None:
    rows = rng.integers(0, 30, 40).astype(np.uint8) if with_rows else None
    matrix = QuantizedMatrix(integers, 0.03, rows, rng.integers(0, 30, integers.shape[1]).astype(np.uint8))
    assert decoded(matrix)[0].tobytes() == matrix.values().tobytes()
    steps = QuantizedMatrix(np.ones((1, 3), np.int32), 0.5, col_steps=np.array([0, 8, 12], np.uint8))
    assert decoded(steps)[0].ravel().tolist() == [0.5, 1.0, 1.5]
    assert grid.matrix_of(matrix).side_bits > grid.matrix_of(QuantizedMatrix(integers, 0.03, rows)).side_bits


def test_float64_values_are_the_products_before_a_decoder_rounds_them() -> None:
    matrix = QuantizedMatrix(np.array([[8_388_607, 3]], np.int32), float(np.float32(0.1)))
    exact = [8_388_607 * float(np.float32(0.1)), 3 * float(np.float32(0.1))]
    assert matrix.values(np.float64).tolist() == [exact]
    assert matrix.values().tolist() == [[float(np.float32(value)) for value in exact]]
    assert matrix.values().dtype == np.float32


def test_classes_that_were_learned_are_the_ones_that_are_coded(integers: np.ndarray) -> None:
    derived = magnitude_classes(np.abs(integers))
    rows, cols = derived.rows.copy(), derived.cols.copy()
    rows[rows > 0] = 1 + np.arange(int((rows > 0).sum())) % 5
    matrix = QuantizedMatrix(integers, 0.1, row_classes=rows, col_classes=cols)
    coded = grid.matrix_of(matrix)
    assert np.array_equal(coded.classes.rows, rows)
    assert decoded(matrix)[0].tobytes() == matrix.values().tobytes()
    own = grid.matrix_of(QuantizedMatrix(integers, 0.1, row_classes=derived.rows, col_classes=derived.cols))
    assert symbols.encode([own]) == symbols.encode([grid.matrix_of(QuantizedMatrix(integers, 0.1))])


def test_a_class_that_would_lose_integers_is_refused(integers: np.ndarray) -> None:
    rows, cols = np.ones(40, np.uint8), np.ones(30, np.uint8)
    rows[2] = 0
    with pytest.raises(ValueError, match="they would be lost"):
        grid.matrix_of(QuantizedMatrix(integers, 0.1, row_classes=rows, col_classes=cols))
    with pytest.raises(ValueError, match="both axes or of none"):
        grid.matrix_of(QuantizedMatrix(integers, 0.1, row_classes=np.ones(40, np.uint8)))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"step": 0.0}, "quantization step"),
        ({"step": 1e-40}, "quantization step"),
        ({"step": float("inf")}, "quantization step"),
        ({"step": float("nan")}, "quantization step"),
        ({"step": 1e30, "row_steps": np.full(40, 255, np.uint8)}, "quantization step"),
        ({"row_steps": np.zeros(30, np.uint8)}, "don't fit"),
        ({"col_steps": np.zeros(40, np.uint8)}, "don't fit"),
        ({"row_classes": np.ones(40, np.uint8), "col_classes": np.ones(40, np.uint8)}, "don't fit"),
        ({"row_classes": np.full(40, 60, np.uint8), "col_classes": np.full(30, 22, np.uint8)}, "more than the 80"),
        ({"integers": np.full((40, 30), -(1 << 31), np.int32)}, "magnitudes"),
        ({"integers": np.full((40, 30), (1 << 23) + 1, np.int32)}, "magnitudes"),
        ({"integers": np.full((40, 30), (1 << 22) + 1, np.int32), "delay": 9}, "magnitudes"),
        ({"delay": 0}, "no delay of 0"),
        ({"delay": 1201}, "no delay of 1,201"),
        ({"integers": np.ones((1 << 10, 1 << 9), np.int8), "delay": (1 << 18) + 1}, "no delay of 262,145"),
    ],
)
def test_what_no_decoder_would_take_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        grid.matrix_of(QuantizedMatrix(**{"integers": np.ones((40, 30), np.int32), "step": 0.1, **fields}))


@pytest.mark.parametrize("delay", [1, 30, 70, 1200])
@pytest.mark.parametrize("scale", [1, 1000])
def test_a_matrix_on_a_trellis_is_decoded_as_it_says(
    delay: int, scale: int, integers: np.ndarray, rng: np.random.Generator
) -> None:
    codes = rng.integers(0, 30, 70).astype(np.uint8)
    plain = QuantizedMatrix(integers, 0.5)
    matrix = QuantizedMatrix(scale * integers + (integers % 5 > 2), 0.03, delay=delay)
    both = replace(matrix, row_steps=codes[:40], col_steps=codes[40:])
    dead = replace(matrix, integers=np.zeros_like(integers))
    given = (plain, matrix, replace(matrix, col_steps=codes[40:]), dead, both, plain)
    for back, made in zip(decoded(*given), given, strict=True):
        assert back.tobytes() == made.values().tobytes()
    assert (grid.matrix_of(matrix).low_bits > 0) == (scale == 1000)
    # A trellis ends with its matrix.
    assert decoded(matrix, matrix)[1].tobytes() == decoded(matrix)[0].tobytes()
    if delay < 600:  # else no parity comes into effect
        assert not np.array_equal(matrix.values(), 2 * replace(matrix, delay=None).values())


@pytest.mark.parametrize("far", [16_383, 16_384, 1 << 17])
def test_escapes_on_a_trellis_have_the_room_that_their_doubles_need(far: int, integers: np.ndarray) -> None:
    integers = np.tile(integers, (10, 10))
    integers[2, 4:8] = far, -far, 1 - far, far
    matrix = QuantizedMatrix(integers, 1.0, delay=1)
    assert grid.matrix_of(matrix).low_bits == 0
    assert decoded(matrix)[0].tobytes() == matrix.values().tobytes()
    assert np.abs(decoded(matrix)[0] - 2 * integers).max() == 1


def test_values_on_a_trellis_go_on_from_window_to_window(rng: np.random.Generator) -> None:
    integers = np.rint(rng.laplace(0, 2, (700, 300))).astype(np.int8)
    values = QuantizedMatrix(integers, 1.0, delay=2100).values()
    trellis = Trellis(2100, integers.size)
    assert values.ravel().tolist() == [value for row in integers for value in trellis.values(row).tolist()]


def test_the_last_class_can_be_used() -> None:
    matrix = QuantizedMatrix(
        np.ones((4, 3), np.int32), 0.1, row_classes=np.full(4, 30, np.uint8), col_classes=np.full(3, 11, np.uint8)
    )
    assert grid.matrix_of(matrix).classes.of_symbols().max() == 39
    assert decoded(matrix)[0].tobytes() == matrix.values().tobytes()


@pytest.mark.parametrize("step", [1e-4, 0.02, 0.3, 3.0])
def test_an_estimate_is_within_a_thousandth_of_what_is_coded(step: float, rng: np.random.Generator) -> None:
    scales = np.exp(rng.normal(0, 0.7, (300, 1)))
    weights = [(rng.standard_normal((300, 400)) * scales).astype(np.float32) for _ in range(3)]
    matrices = [grid.matrix_of(grid.round_to_nearest(each, step)) for each in weights]
    estimate, stream = symbols.estimate(matrices), symbols.encode(matrices)
    coded = sum(map(len, stream.chunks))
    assert len(estimate.chunks) == len(stream.chunks)
    assert coded <= estimate.size <= 1.001 * coded + 64
    assert sum(estimate.tensors) == pytest.approx(estimate.size)
    # Alike in all but their draw, so alike in size.
    assert max(estimate.tensors) < 1.02 * min(estimate.tensors)


def test_a_matrix_of_finer_steps_is_estimated_larger(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((300, 400)).astype(np.float32)
    quantized = [grid.round_to_nearest(weights, step) for step in (0.1, 0.2, 0.4)]
    sizes = symbols.estimate([grid.matrix_of(matrix) for matrix in quantized]).tensors
    # Twice the step costs one bit a weight less.
    assert [a - b for a, b in pairwise(sizes)] == pytest.approx([15_000, 15_000], rel=0.05)


@pytest.mark.parametrize("step", [1e-3, 0.1])
def test_encoding_stays_within_the_memory_that_is_stated(step: float, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((1500, 1400), dtype=np.float32)
    matrix = grid.matrix_of(grid.round_to_nearest(weights, step))
    tracemalloc.start()
    symbols.encode([matrix])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= symbols.WORKING_BYTES_PER_SYMBOL * weights.size + symbols.WORKING_BYTES_FIXED


def test_integers_too_rare_for_a_slot_of_a_table_are_escaped(rng: np.random.Generator) -> None:
    fine = np.rint(rng.laplace(0, 3, (500, 400))).clip(-40, 40).astype(np.int32)
    fine[::50, 7], fine[3, 3] = np.arange(60, 120, 6), -5000
    matrix = QuantizedMatrix(fine, 0.25)
    coded = grid.matrix_of(matrix)
    tables = Tables.of([coded])
    escaped = tables.escape_rare(coded)
    # In the order of their places, between them the one that no symbol stands for.
    assert set(range(60, 120, 6)) | {-5000} <= set(escaped.escaped.tolist())
    assert escaped.escaped.tolist() == fine.ravel()[escaped.symbols == ESCAPE].tolist()
    assert decoded(matrix)[0].tobytes() == matrix.values().tobytes()
    stream = symbols.encode([coded])
    size = sum(map(len, stream.chunks))
    listed = Tables.of_counts(coded.counts, with_escape=False)
    assert tables.bytes_of(coded) < 0.9995 * listed.bytes_of(coded)
    assert size <= symbols.estimate([coded]).size <= 1.001 * size
    assert tables.bytes_of(coded) == pytest.approx(size, rel=0.01)  # without lanes


def test_where_low_bits_are_symbols_of_bytes_nothing_is_escaped(rng: np.random.Generator) -> None:
    lone = np.zeros((300, 300), np.uint8)
    lone[1, 1:100] = np.arange(1, 100)
    coded = CodedMatrix(lone.reshape(-1), Classes(np.ones(300, np.uint8), np.ones(300, np.uint8)))
    assert not Tables.of([coded]).rare.any()
    assert Tables.of([replace(coded, step=1.0)]).rare.any()
