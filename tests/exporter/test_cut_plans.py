"""What plans leave dead is cut out of the graph, and the plans keep their integers and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from seed_exporter.build.streams import Plans, restored
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import exact
from seed_exporter.quantize.cut_plans import cut_dead
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from tests.exporter.support.block_models import image_model, text_model
from tests.exporter.support.pruned_models import Builder, run

STEP = 1 / 16
DEAD_CHANNELS = {
    "stem": [1, 2, 5, 9], "wide": range(12, 32), "deep": range(4, 12), "out": [1, 2, 5, 9, 11], "side": range(8),
    "grouped": range(12), "last": range(8),
}  # fmt: skip
DEAD_COLUMNS = {"table": range(60, 400), "v": range(8, 16), "up": range(20)}


def plans_of(graph: Graph, vectors: bool = True) -> dict:
    """Round every weight to a grid; rows of kernels have steps of their own."""
    rng, plans = np.random.default_rng(3), {}
    for name, weight in graph.weights.items():
        if not vectors and len(weight.shape) == 1:
            plans[name] = exact(weight, 7)
            continue
        integers = np.rint(as_float32(weight) / STEP).astype(np.int32)
        codes = rng.integers(0, 40, len(integers)).astype(np.uint8) if len(weight.shape) == 4 else None
        plans[name] = GridPlan.of_narrow(QuantizedMatrix(integers, STEP, row_steps=codes))
    return plans


def decoded(graph: Graph, plans: Plans) -> Graph:
    weights = {name: replace(weight, data=restored(weight, plans[name])) for name, weight in graph.weights.items()}
    return replace(graph, weights=weights)


def check_cut(graph: Graph, plans: Plans, feeds: Mapping[str, np.ndarray]) -> tuple[Graph, Plans]:
    after, left = cut_dead(graph, plans)
    assert left.keys() == after.weights.keys()
    for one, two in zip(run(decoded(graph, plans), feeds), run(decoded(after, left), feeds), strict=True):
        error = np.sqrt(np.mean((two - one) ** 2, dtype=np.float64))
        assert error <= 1e-5 * np.sqrt(np.mean(one**2, dtype=np.float64))
    return after, left


def image() -> tuple[Graph, Mapping[str, np.ndarray]]:
    b = Builder(x=("n", 3, 16, 16))
    return b.graph(image_model(b, DEAD_CHANNELS)), b.feeds()


def text() -> tuple[Graph, Mapping[str, np.ndarray]]:
    b = Builder(ids=("n", 12))
    return b.graph(text_model(b, DEAD_COLUMNS)), {
        "ids": np.arange(396, 396 - 12 * 30, -15).reshape(2, 12).astype(np.float32)
    }


@pytest.mark.parametrize(("made", "left"), [(image, 0.4), (text, 0.52)])
def test_a_cut_model_computes_what_it_did_and_has_plans_for_all_of_its_weights(made: Callable, left: float):
    graph, feeds = made()
    after, plans = check_cut(graph, plans_of(graph), feeds)
    assert after.parameters < left * graph.parameters
    assert all(isinstance(plans[name], GridPlan) for name in after.weights if name in graph.weights)


def test_integers_and_steps_of_rows_are_those_of_the_places_that_are_left():
    graph, feeds = image()
    plans = plans_of(graph)
    after, left = check_cut(graph, plans, feeds)
    stem, deep = sorted({*range(16)} - {1, 2, 5, 9}), [0, 1, 2, 3]
    for name, rows, columns in (("wide", deep, stem), ("deep", deep, [0]), ("out", stem, deep)):
        old, new = plans[name].matrix, left[name].matrix
        assert new.step == old.step
        assert np.array_equal(new.row_steps, old.row_steps[rows])
        kernel = old.integers.reshape(graph.weights[name].shape)[np.ix_(rows, columns)]
        assert np.array_equal(new.integers, kernel.reshape(coded_view(after.weights[name])))


def test_heads_neurons_and_rows_of_tables_are_gone():
    graph, feeds = text()
    after, _ = check_cut(graph, plans_of(graph), feeds)
    shapes = {name: after.weights[name].shape for name in ("table", "q", "k", "v", "o", "up", "down")}
    assert shapes == {
        "table": (61, 32), "q": (32, 24), "k": (32, 24), "v": (32, 24), "o": (24, 32), "up": (32, 44), "down": (44, 32)
    }  # fmt: skip


def test_a_bias_that_a_constant_is_added_to_is_kept_bit_for_bit():
    b = Builder(x=("n", 16))
    hidden = b.node("Add", b.node("MatMul", "x", b.weight("up", 16, 64, dead=range(30), axis=1)), b.weight("bias", 64))
    down = b.node("MatMul", b.node("Erf", hidden), b.weight("down", 64, 32))
    graph = b.graph(b.node("Add", down, b.weight("bias.down", 32)))
    after, left = check_cut(graph, plans_of(graph), b.feeds())
    (added,) = after.weights.keys() - graph.weights.keys()
    assert left[added] == exact(after.weights[added])
    assert after.weights["up"].shape == (16, 34)


def test_weights_that_are_kept_as_floats_are_cut_with_the_others_and_keep_their_bits():
    graph, feeds = text()
    after, left = check_cut(graph, plans_of(graph, vectors=False), feeds)
    assert after.weights["up.bias"].shape == (44,)
    assert left["up.bias"] == exact(after.weights["up.bias"], 7)


def test_steps_that_no_longer_lie_along_rows_give_floats_of_the_same_bits():
    b = Builder(x=("n", 16))
    hidden = b.node("Gemm", "x", b.weight("one", 8, 16, dead=range(1, 8)), transB=1)
    graph = b.graph(b.node("Gemm", hidden, b.weight("two", 200, 8), transB=1))
    plans = plans_of(graph)
    codes = np.arange(200, dtype=np.uint8)
    plans["two"] = GridPlan.of_narrow(replace(plans["two"].matrix, row_steps=codes))
    after, left = check_cut(graph, plans, b.feeds())
    assert after.weights["two"].shape == (200, 1)
    assert left["two"] == exact(after.weights["two"])
    assert np.array_equal(after.weights["two"].data[:, 0], plans["two"].matrix.values()[:, 0])


def test_plans_without_anything_dead_are_returned_as_they_are():
    b = Builder(x=("n", 16))
    graph = b.graph(b.node("MatMul", "x", b.weight("w", 16, 16)))
    plans = plans_of(graph)
    assert cut_dead(graph, plans) == (graph, plans)
