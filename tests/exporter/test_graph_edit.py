"""Edits of graphs: what they change, and that they never change their argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter.graph.dedup import deduplicate
from seed_exporter.graph.edit import (
    FreshNames,
    drop_initializers,
    drop_unused,
    name_first_results,
    prepend,
    rename_uses,
    with_graph,
    with_outputs,
)
from seed_exporter.graph.index import with_uses
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.loaders import load
from seed_runtime.format.dtypes import FLOAT32
from tests.exporter.support.onnx_models import V, W, info, make, matmul_chain, tensor


def model() -> onnx.ModelProto:
    """Make a model with a branch that reads `w` from outside, one that defines its own `w`, and a node without use."""
    outer = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["a"])], "a", [], [info("a", None)])
    own = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["b"])], "b", [], [info("b", None)], [tensor(V, "w")]
    )
    nodes = [
        helper.make_node("If", ["flag"], ["y"], then_branch=outer, else_branch=own),
        helper.make_node("Relu", ["unused"], ["nowhere"]),
    ]
    held = [tensor(W, "w"), tensor(V, "unused"), tensor(np.array(True), "flag")]
    return make(nodes, held)


def graph() -> Graph:
    """Make the graph of two equal weights in a row."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("MatMul", ["t", "v"], ["y"])]
    held = [TensorProto(name=name, data_type=TensorProto.FLOAT, dims=W.shape) for name in "wv"]
    return with_uses(Graph(make(nodes, held), {name: Weight(name, FLOAT32, W.shape, W.copy()) for name in "wv"}))


def test_a_nested_graph_that_defines_a_name_keeps_reading_its_own() -> None:
    branches = rename_uses(model().graph, {"w": "other"}).node[0].attribute
    read = {attribute.g.name: attribute.g.node[0].input[1] for attribute in branches}
    assert read == {"a": "other", "b": "w"}


def test_what_nothing_reads_goes_and_what_a_branch_reads_stays() -> None:
    left = drop_unused(model().graph)
    assert [node.op_type for node in left.node] == ["If"]
    assert [tensor.name for tensor in left.initializer] == ["w", "flag"]


@pytest.mark.parametrize(
    "edit",
    [
        drop_unused,
        lambda graph: drop_initializers(graph, {"w"}),
        lambda graph: rename_uses(graph, {"w": "other", "x": "z"}),
        lambda graph: prepend(graph, [helper.make_node("Relu", ["x"], ["r"])], [tensor(V, "more")]),
    ],
)
def test_an_edit_leaves_its_argument_as_it_was(edit: Callable[[onnx.GraphProto], onnx.GraphProto]) -> None:
    before = model().graph
    kept = before.SerializeToString(deterministic=True)
    after = edit(before)
    assert before.SerializeToString(deterministic=True) == kept
    assert after.SerializeToString(deterministic=True) != kept


def test_deduplicating_makes_a_new_graph_that_shares_the_data() -> None:
    before = graph()
    kept = before.model.SerializeToString(deterministic=True)
    after = deduplicate(before)
    assert (list(before.weights), list(after.weights)) == (["w", "v"], ["w"])
    assert before.model.SerializeToString(deterministic=True) == kept
    assert after.weights["w"].data is before.weights["w"].data


def test_a_graph_loses_the_weights_that_its_edited_model_no_longer_holds() -> None:
    before = graph()
    after = with_graph(before, drop_initializers(before.model.graph, {"v"}))
    assert (list(before.weights), list(after.weights)) == (["w", "v"], ["w"])


def test_graphs_and_weights_are_read_only() -> None:
    made = graph()
    with pytest.raises(TypeError):
        made.weights["new"] = made.weights["w"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        made.weights["w"].name = "new"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        made.weights = {}  # type: ignore[misc]


def test_a_fresh_name_is_used_at_no_depth() -> None:
    names = FreshNames(model().graph)
    assert [names.take(wanted) for wanted in ("new", "new", "a", "w", "")] == ["new", "new_1", "a_1", "w_1", "_1"]


def test_values_of_the_main_graph_can_become_outputs_and_others_cannot() -> None:
    graph = load(matmul_chain())
    before = graph.model.SerializeToString()
    middle = "layers.1/MatMul_output_0"
    edited = with_outputs(graph, [middle, "y", middle])
    assert [value.name for value in edited.model.graph.output] == ["y", middle]
    assert edited.weights.keys() == graph.weights.keys()
    assert graph.model.SerializeToString() == before
    for name in ("x", "w0", "nowhere"):
        with pytest.raises(ValueError, match=f"no node of the main graph makes '{name}'"):
            with_outputs(graph, [name])


def test_first_results_of_nodes_get_names_where_they_have_none() -> None:
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["", "LSTM_results"], hidden_size=1),
        helper.make_node("LSTM", ["x", "w", "r"], ["all"], hidden_size=1),
        helper.make_node("Identity", ["LSTM_results"], ["y"]),
    ]
    graph = Graph(make(nodes), {})
    before = graph.model.SerializeToString()
    named = name_first_results(graph, {"LSTM"})
    assert [list(node.output) for node in named.model.graph.node[:2]] == [["LSTM_results_1", "LSTM_results"], ["all"]]
    assert graph.model.SerializeToString() == before
    assert name_first_results(named, {"LSTM"}) is named
