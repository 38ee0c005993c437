"""The index of a graph: producers, consumers, shapes, types and nested graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from seed_exporter.graph.index import GraphIndex, used_names
from seed_exporter.loaders import load
from tests.exporter.support.onnx_models import W, constant, info, make, tensor


def branching() -> onnx.ModelProto:
    """Make a model with If, whose branches read `h` and `w` from outside and both define `t`."""

    def branch(name: str) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["h", "w"], ["t"]), helper.make_node("Neg", ["t"], [name])]
        return helper.make_graph(nodes, name, [], [info(name, None)])

    nodes = [
        constant(np.array(True), "flag"),
        helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    return make(nodes, [tensor(W, "w")], inputs=[info("x", ("n", 16))], value_info=[info("h", ("n", None))])


def test_nodes_of_nested_graphs_are_found_after_those_outside() -> None:
    index = GraphIndex(branching().graph)
    assert [node.op_type for node in index.nodes] == ["Constant", "Gemm", "If", "MatMul", "Neg", "MatMul", "Neg"]
    assert [graph.name for graph in index.graphs[1:]] == ["b", "a"]  # attributes stand in the order of their names


def test_producers_are_nodes_of_the_main_graph_and_consumers_of_any() -> None:
    index = GraphIndex(branching().graph)
    assert {name: node.op_type for name, node in index.producers.items()} == {
        "flag": "Constant",
        "h": "Gemm",
        "y": "If",
    }
    assert [(use.node.op_type, use.input_index) for use in index.consumers["w"]] == [
        ("Gemm", 1),
        ("MatMul", 1),
        ("MatMul", 1),
    ]
    assert "y" not in index.consumers


def test_names_that_several_graphs_define_are_counted() -> None:
    index = GraphIndex(branching().graph)
    assert index.definitions["t"] == 2
    assert index.definitions["h"] == index.definitions["w"] == index.definitions["x"] == 1
    assert index.returned == {"y", "a", "b"}
    assert used_names(branching().graph) == {"flag", "x", "w", "h", "t", "y", "a", "b"}


def test_shapes_and_types_are_those_that_the_graph_states() -> None:
    index = GraphIndex(branching().graph)
    assert index.shapes == {"x": ("n", 16), "h": ("n", None), "w": (16, 16)}
    assert set(index.types) == {"x", "h", "y"}
    assert index.types["x"].tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_weight_knows_all_its_uses_with_their_attributes() -> None:
    graph = load(branching())
    assert [(use.op, use.index, dict(use.attributes)) for use in graph.weights["w"].uses] == [
        ("Gemm", 1, {"transB": 1}),
        ("MatMul", 1, {}),
        ("MatMul", 1, {}),
    ]
