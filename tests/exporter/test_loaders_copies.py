"""Copies of a weight, and weights in nested graphs: nothing stored twice, the same outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.graph.matrix import matrix_view
from seed_exporter.loaders import load
from tests.exporter.support.onnx_models import RNG, V, W, check_same, constant, info, make, tensor


def test_tied_copies_are_stored_once(tmp_path: Path):
    nodes = [
        constant(W, "copy"),
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "copy"], ["y"]),
    ]
    graph = check_same(make(nodes, [tensor(W, "w")]), tmp_path)
    assert list(graph.weights) == ["w"]
    assert len(graph.weights["w"].uses) == 2


def test_bits_decide_what_is_a_copy(tmp_path: Path):
    nan, zero = W.copy(), W.copy()
    nan[0, 0] = np.nan
    zero[0, 0] = 0.0
    minus = zero.copy()
    minus[0, 0] = -0.0
    names = ["nan", "nan again", "zero", "minus"]
    nodes = [helper.make_node("Sum", names, ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    model = make(nodes, [tensor(each, name) for each, name in zip([nan, nan, zero, minus], names, strict=True)])
    assert list(load(model).weights) == ["nan", "zero", "minus"]


def test_small_constants_that_repeat_are_stored_once(tmp_path: Path):
    half = np.array(0.5, np.float32)
    nodes = [
        constant(half, "a"),
        constant(half, "b"),
        helper.make_node("Mul", ["x", "a"], ["t"]),
        helper.make_node("Mul", ["t", "b"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert len(graph.model.graph.initializer) == 1


def test_a_tied_embedding_that_was_transposed_is_stored_once(tmp_path: Path):
    table = RNG.standard_normal((300, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["t"]),
        helper.make_node("MatMul", ["t", "head"], ["y"]),
    ]
    model = make(
        nodes,
        # The copy comes first: the table must stay all the same, as its rows are read one by one.
        [tensor(np.ascontiguousarray(table.T), "head"), tensor(table, "table")],
        inputs=[info("x", ["n"], TensorProto.INT64)],
    )
    graph = check_same(model, tmp_path, {"x": np.array([3, 250])})
    assert list(graph.weights) == ["table"]
    assert matrix_view(graph.weights["table"]) == (300, 16)
    assert [node.op_type for node in graph.model.graph.node] == ["Transpose", "Gather", "MatMul"]


def test_a_reshaped_copy_is_made_from_the_one_that_stays(tmp_path: Path):
    big = RNG.standard_normal((16, 128)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    model = make(nodes, [tensor(big, "w"), tensor(big.reshape(128, 16), "v")])
    graph = check_same(model, tmp_path)
    assert list(graph.weights) == ["w"]


def test_transposed_quantized_weights_keep_both_copies(tmp_path: Path):
    codes = RNG.integers(-127, 127, (16, 300)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("DequantizeLinear", ["r", "s"], ["v"]),
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    held = [
        tensor(codes, "q"),
        tensor(np.ascontiguousarray(codes.T), "r"),
        tensor(np.array(0.1, np.float32), "s"),
    ]
    assert list(check_same(make(nodes, held), tmp_path).weights) == ["q", "r"]


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
