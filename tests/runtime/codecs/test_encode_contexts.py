from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.codecs.encode import grid, symbols
from seed_runtime.codecs.encode.contexts import CLASS_STEP, CLASSES, Classes, from_levels, magnitude_classes
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import CLASSES_ALL, CodedMatrix, entropy_bits, histogram
from seed_runtime.codecs.encode.tables import Tables
from seed_runtime.limits import CLASSES_MAX, TABLES_MAX


def _scaled(rng: np.random.Generator, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return np.rint(rng.laplace(0, 1, (rows.size, cols.size)) * rows[:, None] * cols[None]).astype(np.int32)


def _sizes(rng: np.random.Generator, count: int, spread: float = 1.5) -> np.ndarray:
    return np.exp(rng.uniform(-spread, spread, count))


def test_a_symbol_has_the_class_of_its_row_and_its_column_together() -> None:
    classes = Classes(np.array([1, 0, 4], np.uint8), np.array([1, 3], np.uint8))
    assert classes.of_symbols().tolist() == [[0, 2], [3, 5]]
    assert [axis.ravel().tolist() for axis in classes.live()] == [[0, 2], [0, 1]]


def test_rows_of_zeros_are_dead_and_so_are_columns(rng: np.random.Generator) -> None:
    integers = _scaled(rng, _sizes(rng, 40) * 5, _sizes(rng, 60))
    integers[[3, 39]], integers[:, [0, 20]] = 0, 0
    classes = magnitude_classes(np.abs(integers))
    assert np.flatnonzero(classes.rows == 0).tolist() == [3, 39]
    assert np.flatnonzero(classes.cols == 0).tolist() == [0, 20]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 7)])
def test_a_matrix_of_zeros_has_no_live_symbols(shape: tuple[int, int]) -> None:
    assert magnitude_classes(np.zeros(shape, np.int32)).of_symbols().size == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0, 1e4])
@pytest.mark.parametrize("spread", [0.0, 2.0, 4.0])
def test_every_class_has_a_table(scale: float, spread: float, rng: np.random.Generator) -> None:
    integers = _scaled(rng, scale * _sizes(rng, 50, spread), _sizes(rng, 70, spread))
    integers[0, 0] = 1
    assert magnitude_classes(np.abs(integers)).of_symbols().max() < CLASSES


def test_every_class_has_a_table_where_only_the_levels_are_far_apart() -> None:
    levels = np.linspace(-300, 300, 60)
    assert from_levels(levels, levels, 0.0).of_symbols().max() < CLASSES


def test_classes_follow_the_logarithm_of_the_magnitude(rng: np.random.Generator) -> None:
    rows = np.exp(np.repeat([0.0, 8 * CLASS_STEP], 50))
    classes = magnitude_classes(np.abs(_scaled(rng, 5 * rows, np.ones(400))))
    difference = np.median(classes.rows[50:]) - np.median(classes.rows[:50])
    assert difference == 8


def test_dead_columns_do_not_move_the_classes_of_rows(rng: np.random.Generator) -> None:
    integers = _scaled(rng, 8 * _sizes(rng, 100), np.ones(120))
    pruned = np.concatenate([integers, np.zeros((100, 360), np.int32)], axis=1)
    whole, part = (magnitude_classes(np.abs(q)) for q in (integers, pruned))
    assert np.array_equal(whole.rows, part.rows)


def test_classes_that_gain_nothing_are_not_sent(rng: np.random.Generator) -> None:
    classes = magnitude_classes(np.abs(_scaled(rng, np.full(64, 3.0), np.ones(64))))
    assert np.unique(classes.rows).size == 1
    assert np.unique(classes.cols).size == 1


def test_contexts_save_bits_where_scales_differ(rng: np.random.Generator) -> None:
    integers = _scaled(rng, _sizes(rng, 300), _sizes(rng, 300))
    coded = grid.matrix_of(QuantizedMatrix(integers, 1.0))
    counts = histogram([coded])
    alone = entropy_bits(counts.sum(axis=0, keepdims=True))
    assert entropy_bits(counts) < 0.85 * alone


def test_a_stream_stays_close_to_the_entropy_under_its_contexts(rng: np.random.Generator) -> None:
    integers = _scaled(rng, 2 * _sizes(rng, 600), _sizes(rng, 500))
    stream = symbols.encode([grid.matrix_of(QuantizedMatrix(integers, 1.0))])
    assert sum(map(len, stream.chunks)) < 1.01 * stream.entropy_bits / 8 + 2048


def test_columns_in_which_one_sign_prevails_have_classes_of_their_own(rng: np.random.Generator) -> None:
    integers = _scaled(rng, _sizes(rng, 200), np.ones(90))
    integers[:, :30], integers[:, 30:40] = abs(integers[:, :30]), -abs(integers[:, 30:40])
    integers[:, 50] = 0
    coded = grid.matrix_of(QuantizedMatrix(integers, 1.0))
    kinds = (coded.classes.cols.astype(int) - 1) // CLASSES
    assert kinds[:40].tolist() == [1] * 30 + [2] * 10
    assert kinds[50] == -1
    assert (kinds[40:] == 0).sum() > 40
    signs = int(np.count_nonzero(integers[:, :40]))
    plain = CodedMatrix(coded.symbols, magnitude_classes(np.abs(integers)))
    assert entropy_bits(coded.counts) < entropy_bits(plain.counts) - 0.8 * signs


def test_signs_that_prevail_by_chance_have_no_classes_of_their_own(rng: np.random.Generator) -> None:
    for rows in (3, 30, 300):
        coded = grid.matrix_of(QuantizedMatrix(_scaled(rng, np.full(rows, 3.0), np.ones(64)), 1.0))
        assert coded.classes.cols.max() <= CLASSES


def test_the_tables_of_a_stream_are_no_more_than_a_decoder_takes(rng: np.random.Generator) -> None:
    counts = rng.integers(0, 1 << 20, (CLASSES_ALL, 256)) * (rng.random((CLASSES_ALL, 256)) < 0.3)
    tables = Tables.of_counts(counts, with_escape=True)
    assert len(tables.groups) == TABLES_MAX
    assert [tables.groups[0].start, tables.groups[-1].stop] == [0, CLASSES_ALL]
    assert CLASSES_ALL <= CLASSES_MAX
