"""`seed_exporter.targets.grids`: integers of few bits for planned weights."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Weight
from seed_exporter.loaders import load
from seed_exporter.quantize.allocate import exact
from seed_exporter.targets.grids import by_block, by_channel, matrices
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.format.dtypes import FLOAT32
from tests.exporter.support.exporting import of_nodes


def weight_of(data: np.ndarray) -> Weight:
    return Weight("w", FLOAT32, data.shape, data.astype(np.float32))


def test_integers_that_fit_are_the_plans_with_one_step() -> None:
    weight = weight_of(np.linspace(-1, 1, 48).reshape(6, 8))
    grid = by_channel(weight, GridPlan(0.125), 1, 63)
    assert grid.planned
    assert (grid.scales.shape, float(grid.scales)) == ((), 0.125)
    assert np.array_equal(grid.integers, GridPlan(0.125).quantize(weight).integers)


def test_a_channel_that_does_not_fit_gets_a_larger_step_and_the_others_keep_theirs(rng: np.random.Generator) -> None:
    data = rng.uniform(-1, 1, (32, 8))
    data[5, 3] = 9.0
    weight = weight_of(data)
    grid = by_channel(weight, GridPlan(0.02), 1, 63)
    assert not grid.planned
    assert grid.scales.shape == (1, 8)
    # 9 / (63.49 * .02) is 7.09, and the next eighth of an octave is 7.5.
    assert np.allclose(grid.scales[0], [0.02] * 3 + [0.15] + [0.02] * 4)
    assert np.abs(grid.integers).max() <= 63
    assert np.abs(grid.integers * grid.scales - data).max() <= 0.0751


def test_neighbours_of_one_sign_get_a_larger_step_where_their_sum_is_too_large() -> None:
    weight = weight_of(np.array([[100, -60, 20, 3], [100, 60, 20, 3], [3, 100, 60, 3], [-40, -90, 1, 1]]))
    grid = by_channel(weight, GridPlan(1.0), 0, 127, pairs=128)
    # 160 / 127 is 1.26 and 130 / 127 is 1.02, and the next eighths are 1.375 and 1.125.
    assert grid.integers.tolist() == [[100, -60, 20, 3], [73, 44, 15, 2], [3, 100, 60, 3], [-36, -80, 1, 1]]
    assert grid.scales[:, 0].tolist() == [1.0, 1.375, 1.0, 1.125]


def test_neighbours_in_a_kernel_are_channels_and_then_places(rng: np.random.Generator) -> None:
    even, odd = np.zeros((1, 2, 1, 2)), np.zeros((1, 3, 1, 2))
    even[0, :, 0, 1] = 100
    odd[0, 2, 0, 0] = odd[0, 0, 0, 1] = 100
    for data in (even, odd):
        grid = by_channel(weight_of(data), GridPlan(1.0), 0, 127, pairs=128)
        assert int(grid.integers.max()) < 100
    assert by_channel(weight_of(even.transpose(0, 3, 2, 1)), GridPlan(1.0), 0, 127, pairs=128).planned
    weight = weight_of(rng.standard_normal((8, 6, 3, 3)))
    integers = by_channel(weight, exact(weight), 0, 127, pairs=128).integers.transpose(0, 2, 3, 1).reshape(8, -1, 2)
    for signed in (integers, -integers):
        assert 100 < np.maximum(signed, 0).sum(axis=2).max() <= 128


def test_steps_of_rows_are_those_of_channels_along_the_first_axis() -> None:
    matrix = QuantizedMatrix(np.array([[1, 2], [3, -4]], np.int32), 0.5, row_steps=np.array([0, 8], np.uint8))
    weight = weight_of(matrix.values())
    grid = by_channel(weight, GridPlan.of(matrix), 0, 63)
    assert grid.scales.tolist() == [[0.5], [1.0]]
    assert grid.planned
    # Columns have no such steps: their weights are rounded anew.
    other = by_channel(weight, GridPlan.of(matrix), 1, 63)
    assert not other.planned
    assert np.abs(other.integers * other.scales - weight.data).max() < 4 / 63


def test_weights_without_a_step_use_all_integers_of_each_channel(rng: np.random.Generator) -> None:
    weight = weight_of(rng.standard_normal((40, 6)) * [1, 2, 4, 8, 16, 0])
    grid = by_channel(weight, exact(weight), 1, 127)
    assert np.abs(grid.integers).max(axis=0).tolist()[:5] == [127] * 5 or np.abs(grid.integers).max() <= 127
    assert (np.abs(grid.integers[:, :5]).max(axis=0) >= 126).all()
    assert not grid.integers[:, 5].any()


def test_large_blocks_are_taken_where_nearly_all_integers_fit(rng: np.random.Generator) -> None:
    weight = weight_of(rng.uniform(-1, 1, (256, 12)))
    grid, size = by_block(weight, GridPlan(0.25), inputs_first=True, bits=4)
    assert (size, grid.integers.shape, grid.planned) == (128, (12, 2, 128), True)
    assert np.allclose((grid.integers * grid.scales).reshape(12, 256).T, GridPlan(0.25).quantize(weight).values())


def test_small_blocks_are_taken_where_many_integers_do_not_fit(rng: np.random.Generator) -> None:
    weight = weight_of(rng.standard_normal((12, 256)))
    grid, size = by_block(weight, GridPlan(0.1), inputs_first=False, bits=4)
    assert size == 32
    assert -8 <= grid.integers.min() <= grid.integers.max() <= 7
    assert len(np.unique(grid.scales)) > 4
    values = (grid.integers * grid.scales).reshape(12, 256)
    assert np.abs(values - weight.data).max() <= 0.5001 * grid.scales.max()


def test_the_size_of_a_block_divides_the_inputs(rng: np.random.Generator) -> None:
    weight = weight_of(rng.uniform(-1, 1, (576, 8)))
    assert by_block(weight, GridPlan(0.25), inputs_first=True, bits=4)[1] == 64
    assert by_block(weight, exact(weight), inputs_first=True, bits=4)[1] == 32


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_a_matrix_with_a_number_that_no_step_holds_stays_floats(number: float, rng: np.random.Generator) -> None:
    drawn = rng.standard_normal((2, 64, 64)).astype(np.float32)
    drawn[0, 5, 3] = number
    value = helper.make_tensor_value_info
    model = of_nodes(
        [helper.make_node("MatMul", ["x", "bad"], ["h"]), helper.make_node("MatMul", ["h", "good"], ["y"])],
        [numpy_helper.from_array(each, name) for each, name in zip(drawn, ("bad", "good"), strict=True)],
        [value("x", TensorProto.FLOAT, ["n", 64])],
        [value("y", TensorProto.FLOAT, ["n", 64])],
    )
    graph = load(model)
    assert [weight.name for weight in matrices(graph, GraphIndex(graph))] == ["good"]
