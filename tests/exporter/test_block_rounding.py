"""Rounding in blocks by the moments of inputs: scales, feedback, and where a target uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_runtime
from seed_exporter.calibrate import COVARIANCES, collect
from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.model import Weight
from seed_exporter.loaders import load
from seed_exporter.quantize.rounding.by_blocks import BlockRounder, best_ranges, best_scales
from seed_exporter.targets.grids import by_block
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.format.dtypes import FLOAT32
from tests.exporter.support.exporting import layers, of_nodes, quick_export
from tests.exporter.support.gradients import session

INPUTS, OUTPUTS = 128, 24


@pytest.fixture
def inputs(rng: np.random.Generator) -> np.ndarray:
    """Vectors whose entries depend on a few others, one of them far larger, as those of language models do."""
    mixed = rng.standard_normal((512, 16)) @ rng.standard_normal((16, INPUTS)) + rng.standard_normal((512, INPUTS)) / 4
    mixed[:, 5] += 40
    return mixed.astype(np.float32)


@pytest.fixture
def weights(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)


def measured(inputs: np.ndarray) -> BlockRounder:
    moments = (inputs.T @ inputs / len(inputs))[None, None]
    return BlockRounder({"w": Covariance(moments, np.array([len(inputs)]))})


def damage(
    inputs: np.ndarray, weights: np.ndarray, integers: np.ndarray, scales: np.ndarray, zeros: np.ndarray | int = 0
) -> float:
    return float(np.square(inputs @ (((integers - zeros) * scales).reshape(weights.shape) - weights).T).mean())


@pytest.mark.parametrize("bits", [4, 2])
def test_scales_that_clip_do_less_damage_than_those_that_hold_the_largest_weight(
    weights: np.ndarray, bits: int
) -> None:
    blocks, most = weights.reshape(OUTPUTS, -1, 64), (1 << (bits - 1)) - 1
    even = np.ones(64, np.float32)

    def squared(scales: np.ndarray) -> float:
        rounded = np.clip(np.rint(blocks / scales), -most - 1, most)
        return float(np.square(blocks - rounded * scales).sum())

    found = best_scales(blocks, bits, even)
    assert found.shape == (OUTPUTS, 2, 1)
    assert squared(found) < 0.95 * squared(np.abs(blocks).max(axis=2, keepdims=True) / (most + 0.5))
    # Sixteen scales an octave, so that few different ones are stored.
    sixteenths = 16 * np.log2(np.abs(found))
    assert np.allclose(sixteenths, np.rint(sixteenths), atol=1e-3)


def test_a_scale_spares_the_inputs_that_count(weights: np.ndarray) -> None:
    block = weights[:1, None, :64].copy()
    block[..., 0] = 8.0
    rest = np.ones(64, np.float32)
    rest[0] = 0.0
    assert abs(best_scales(block, 4, rest).item()) < abs(best_scales(block, 4, np.ones(64, np.float32)).item())


@pytest.mark.parametrize("values", [0.0, 1e-38, 1e30])
def test_blocks_of_any_size_have_a_finite_scale(values: float) -> None:
    blocks = np.full((1, 2, 16), values, np.float32)
    ranged, zeros = best_ranges(blocks, 4, np.ones(16, np.float32))
    for scales in (best_scales(blocks, 4, np.ones(16, np.float32)), ranged):
        assert np.isfinite(scales).all()
        assert (scales != 0).all()
    assert ((zeros >= -8) & (zeros <= 7)).all()


def test_a_zero_point_moves_the_integers_to_where_the_weights_are(weights: np.ndarray) -> None:
    even = np.ones(64, np.float32)
    blocks = (weights + 2).reshape(OUTPUTS, -1, 64)
    scales, zeros = best_ranges(blocks, 4, even)
    rounded = np.clip(np.rint(blocks / scales) + zeros, -8, 7)
    plain = best_scales(blocks, 4, even)
    nearest = np.clip(np.rint(blocks / plain), -8, 7) * plain
    assert np.square((rounded - zeros) * scales - blocks).sum() < 0.5 * np.square(nearest - blocks).sum()
    # 0 has an integer, wherever they are.
    assert ((zeros >= -8) & (zeros <= 7) & (zeros == np.rint(zeros))).all()


def test_feedback_does_a_fraction_of_the_damage_of_rounding_to_nearest(inputs: np.ndarray, weights: np.ndarray) -> None:
    found = measured(inputs)("w", weights, 64, 4)
    assert found is not None
    integers, scales, zeros = found
    assert zeros is not None
    assert (integers.shape, scales.shape, zeros.shape) == ((OUTPUTS, 2, 64), (OUTPUTS, 2, 1), (OUTPUTS, 2, 1))
    assert -8 <= integers.min() < integers.max() <= 7
    assert -8 <= zeros.min() < zeros.max() <= 7
    blocks = weights.reshape(OUTPUTS, -1, 64)
    plain = best_scales(blocks, 4, np.ones(64, np.float32))
    nearest = np.clip(np.rint(blocks / plain), -8, 7)
    assert damage(inputs, weights, integers, scales, zeros) < 0.2 * damage(inputs, weights, nearest, plain)


def test_nothing_is_rounded_of_which_nothing_was_measured(inputs: np.ndarray, weights: np.ndarray) -> None:
    rounder = measured(inputs)
    assert rounder("v", weights, 64, 4) is None
    assert rounder("w", weights[:, :64], 64, 4) is None
    assert measured(np.zeros_like(inputs))("w", weights, 64, 4) is None
    endless = Covariance(np.full((1, 1, INPUTS, INPUTS), np.inf, np.float32), np.array([512]))
    assert BlockRounder({"w": endless})("w", weights, 64, 4) is None


def test_a_weight_is_rounded_once(inputs: np.ndarray, weights: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    rounder = measured(inputs)
    first = rounder("w", weights, 64, 4)
    monkeypatch.setattr("seed_exporter.quantize.rounding.by_blocks.factor", lambda *_: pytest.fail("it was again"))
    again = rounder("w", weights, 64, 4)
    assert first is not None
    assert again is not None
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_blocks_of_64_are_rounded_by_moments_where_a_plans_step_is_too_fine(
    inputs: np.ndarray, weights: np.ndarray
) -> None:
    rounder = measured(inputs)
    weight = Weight("w", FLOAT32, (INPUTS, OUTPUTS), np.ascontiguousarray(weights.T))
    grid, size = by_block(weight, GridPlan(0.1), inputs_first=True, bits=4, rounding=rounder)
    found = rounder("w", weights, 64, 4)
    assert found is not None
    assert (size, grid.planned, grid.step > 0) == (64, False, True)
    assert np.array_equal(grid.integers, found[0])
    # Integers that fit are those of the plan, which was rounded with feedback of its own.
    grid, _ = by_block(weight, GridPlan(1.0), inputs_first=True, bits=4, rounding=rounder)
    assert grid.planned
    # Without moments, blocks are small.
    other = Weight("v", FLOAT32, weight.shape, weight.data)
    assert by_block(other, GridPlan(0.1), inputs_first=True, bits=4, rounding=rounder)[1] == 32


def tied() -> onnx.ModelProto:
    """A table of words whose transpose computes scores: ids[n] -> scores[n, 12]."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Tanh", ["rows"], ["h"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "turned"], ["scores"]),
    ]
    table = np.random.default_rng(3).standard_normal((12, 8)).astype(np.float32)
    value: Any = helper.make_tensor_value_info
    return of_nodes(
        nodes,
        [numpy_helper.from_array(table, "table")],
        [value("ids", TensorProto.INT64, ["n"])],
        [value("scores", TensorProto.FLOAT, ["n", 12])],
    )


def test_a_table_whose_transpose_computes_scores_has_the_moments_of_what_it_is_multiplied_by(tmp_path: Path) -> None:
    graph = load(tied())
    (name,) = graph.weights
    ids = np.array([1, 5, 7, 7])
    found = collect(graph, {COVARIANCES}, [{"ids": ids}], tmp_path)[COVARIANCES]
    h = np.tanh(np.asarray(graph.weights[name].data).reshape(12, 8)[ids])
    assert np.allclose(found[name].total()[0], h.T @ h / 4, atol=1e-5)
    # Other rounding than in blocks leaves tables to the counts of their rows.
    assert linear_view(graph.weights[name]) is None


def test_a_table_that_a_transpose_leaves_as_it_is_has_no_moments(tmp_path: Path) -> None:
    model = tied()
    (turn,) = (node for node in model.graph.node if node.op_type == "Transpose")
    turn.attribute[0].ints[:] = [0, 1]
    (product,) = (node for node in model.graph.node if node.op_type == "MatMul")
    product.input[0] = "x"
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    feeds = {"ids": np.array([1, 5]), "x": np.ones((2, 12), np.float32)}
    assert not collect(load(model), {COVARIANCES}, [feeds], tmp_path)[COVARIANCES]


def test_an_export_with_inputs_rounds_blocks_by_their_moments(
    inputs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = layers(np.random.default_rng(4), INPUTS, 64, 32)
    calib = tmp_path / "calib.npz"
    np.savez(calib, x=inputs[:256])
    others = inputs[256:]
    expected = session(model).run(["y"], {"x": others})[0]

    def error(name: str) -> float:
        quick_export(model, tmp_path / name, dtype="int4", effort=1, size=1 << 20, calib=calib)
        with seed_runtime.open(tmp_path / name).session(cache=ModelCache(tmp_path / "cache", 1 << 30)) as opened:
            found = opened.run({"x": others})["y"]
        return float(np.square(found - expected).mean())

    by_moments = error("moments.seed")
    monkeypatch.setattr(BlockRounder, "__call__", lambda *_: None)
    assert by_moments < 0.7 * error("nearest.seed")
