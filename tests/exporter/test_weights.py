"""Weights are taken out of Constant nodes, nested graphs and sparse tensors, and the model computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.loaders import load
from tests.exporter.support.onnx_models import V, W, check_same, constant, info, make, tensor


def test_weights_in_constant_nodes_become_initializers(tmp_path: Path):
    nodes = [
        constant(W, "w"),
        helper.make_node("Constant", [], ["s"], value_float=0.5),
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Mul", ["t", "s"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert list(graph.weights) == ["w"]
    assert [node.op_type for node in graph.model.graph.node] == ["MatMul", "Mul"]


def test_a_constant_that_is_an_output_stays_one(tmp_path: Path):
    nodes = [constant(W, "z"), helper.make_node("MatMul", ["x", "z"], ["y"])]
    graph = check_same(make(nodes, outputs=[info("y", None), info("z", None)]), tmp_path)
    assert len(graph.weights) == 1


def test_sparse_weights_are_made_dense(tmp_path: Path):
    values, places = tensor(np.array([2.0, 3.0], np.float32), "w"), tensor(np.array([17, 40]), "i")
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], ir=8)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [16, 16]))
    assert np.flatnonzero(load(model).weights["w"].data).tolist() == [17, 40]
    twin = helper.make_sparse_tensor(values, tensor(np.array([[1, 1], [2, 8]]), "i"), [16, 16])
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=twin),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert np.flatnonzero(graph.weights["w"].data).tolist() == [17, 40]


def branch(name: str, data: np.ndarray, *, as_initializer: bool = False) -> onnx.GraphProto:
    """A branch of If that multiplies by its own weight, always called `inner`."""
    nodes = [] if as_initializer else [constant(data, "inner")]
    nodes.append(helper.make_node("MatMul", ["x", "inner"], [name]))
    return helper.make_graph(nodes, name, [], [info(name, None)], [tensor(data, "inner")] if as_initializer else [])


def test_weights_of_branches_with_one_name_are_kept_apart(tmp_path: Path):
    flags = [constant(np.array(True), "yes"), constant(np.array(False), "no")]
    nodes = [
        *flags,
        helper.make_node("If", ["yes"], ["a"], then_branch=branch("t1", W), else_branch=branch("e1", V)),
        helper.make_node(
            "If",
            ["no"],
            ["b"],
            then_branch=branch("t2", W, as_initializer=True),
            else_branch=branch("e2", V + 1, as_initializer=True),
        ),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert sorted(weight.data[0, 0] for weight in graph.weights.values()) == sorted([W[0, 0], V[0, 0], (V + 1)[0, 0]])


def test_a_branch_that_returns_its_weight_still_does(tmp_path: Path):
    outer = []
    for name, data in (("then", W), ("else", V)):
        outer.append(helper.make_graph([constant(data, f"{name}_out")], name, [], [info(f"{name}_out", None)]))
    nodes = [
        constant(np.array(False), "no"),
        helper.make_node("If", ["no"], ["w"], then_branch=outer[0], else_branch=outer[1]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    assert len(check_same(make(nodes), tmp_path).weights) == 2


def test_weights_in_a_loop_within_a_branch_are_found(tmp_path: Path):
    body = helper.make_graph(
        [
            constant(W, "w"),
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state", None)],
        [info("go_on", [], TensorProto.BOOL), info("next", None)],
    )
    loop = [
        constant(np.array(2), "times"),
        constant(np.array(True), "go0"),
        helper.make_node("Loop", ["times", "go0", "x"], ["then_out"], body=body),
    ]
    nodes = [
        constant(np.array(True), "yes"),
        helper.make_node(
            "If",
            ["yes"],
            ["y"],
            then_branch=helper.make_graph(loop, "then", [], [info("then_out", None)]),
            else_branch=branch("else_out", V),
        ),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert len(graph.weights) == 2
    assert all(weight.uses[0].op == "MatMul" for weight in graph.weights.values())
