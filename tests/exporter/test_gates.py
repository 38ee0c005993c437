"""Biases of rows that die in training die with them where something can be cut. Skipped without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seed_exporter.graph.model import Graph
from seed_exporter.quantize.cut_plans import cut_dead
from seed_exporter.quantize.methods import METHODS
from tests.exporter.support.block_models import image_model, text_model
from tests.exporter.support.dead_units import kill
from tests.exporter.support.pruned_models import Builder

NO_TORCH = {"exc_type": ImportError}
torch = pytest.importorskip("torch", **NO_TORCH)
student_graph = pytest.importorskip("seed_exporter.heal.student_graph", **NO_TORCH)


def student(graph: Graph, norms: bool = False) -> Any:
    folded = METHODS["grid"].prepare(graph)
    return student_graph.StudentGraph(graph, folded, [], norms, 0.1, torch.device("cpu"))


def check_same_bits(trained: Any) -> dict[str, np.ndarray]:
    """Check that plans decode to what is trained on, and return the decoded vectors."""
    with torch.no_grad():
        weights, _ = trained.weights()
    plans = trained.plans()
    found = {}
    for name, plan in plans.items():
        found[name] = plan.matrix.values().reshape(-1)
        if trained.rounds_vectors:
            assert np.array_equal(found[name], weights[name].numpy().reshape(-1))
    return found


def test_the_bias_of_a_dead_neuron_or_head_dies_and_that_of_a_residual_stream_stays():
    b = Builder(ids=("n", 12))
    trained = student(b.graph(text_model(b)))
    for name, rows in (("up", slice(20)), ("v", slice(8, 16)), ("o", slice(5)), ("down", slice(5))):
        kill(trained, name, rows)
    trained.fold([])
    found = check_same_bits(trained)
    assert not found["up.bias"][:20].any()
    assert found["up.bias"][20:].any()
    assert not found["v.bias"][8:16].any()
    assert found["o.bias"][:5].any()
    assert found["down.bias"][:5].any()


@pytest.mark.parametrize("norms", [False, True])
def test_a_depthwise_convolution_of_a_dead_channel_is_dead(norms: bool):
    b = Builder(x=("n", 3, 16, 16))
    trained = student(b.graph(image_model(b, norms=True)), norms)
    kill(trained, "wide", slice(12))
    kill(trained, "deep", slice(12, 16))
    bias = {node.output[0]: node.input[2] for node in trained._folded.model.graph.node if node.op_type == "Conv"}
    deep = next(value for name, value in bias.items() if value.startswith("deep"))
    before = check_same_bits(trained)
    trained.fold([])
    for found in (before, check_same_bits(trained)):
        assert not found[deep][:16].any()
        assert found[deep][16:].any()


def test_what_dies_with_its_bias_is_cut_without_new_floats():
    b = Builder(ids=("n", 12))
    trained = student(b.graph(text_model(b)))
    kill(trained, "up", slice(20))
    kill(trained, "v", slice(8, 16))
    trained.fold([])
    graph = trained._folded
    others = METHODS["lossless"].prepare(graph).weights.keys() - trained.plans().keys()
    assert not others
    after, plans = cut_dead(graph, trained.plans())
    assert after.weights["up"].shape == (32, 44)
    assert after.weights["v"].shape == (32, 24)
    assert after.weights.keys() <= graph.weights.keys()
    assert plans.keys() == after.weights.keys()


def test_an_output_whose_shape_is_not_stated_counts_samples_where_that_can_be_inferred():
    from seed_exporter.heal.graphs import takes_batches

    b = Builder(x=("n", 3, 16, 16))
    out = image_model(b)
    assert takes_batches(b.graph(out))
    assert not takes_batches(b.graph(b.node("ReduceMean", out, b.constant([0]), keepdims=0)))
    fixed = Builder(x=(1, 3, 16, 16))
    assert not takes_batches(fixed.graph(image_model(fixed)))
