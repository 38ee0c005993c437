"""Copies of a weight are stored once, and the model computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from seed_exporter.graph.matrix import matrix_view
from seed_exporter.loaders import load
from tests.exporter.support.onnx_models import W, check_same, constant, info, make, tensor


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


def test_a_tied_embedding_that_was_transposed_is_stored_once(tmp_path: Path, rng: np.random.Generator):
    table = rng.standard_normal((300, 16)).astype(np.float32)
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


def test_a_reshaped_copy_is_made_from_the_one_that_stays(tmp_path: Path, rng: np.random.Generator):
    big = rng.standard_normal((16, 128)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    model = make(nodes, [tensor(big, "w"), tensor(big.reshape(128, 16), "v")])
    graph = check_same(model, tmp_path)
    assert list(graph.weights) == ["w"]


def test_transposed_quantized_weights_keep_both_copies(tmp_path: Path, rng: np.random.Generator):
    codes = rng.integers(-127, 127, (16, 300)).astype(np.int8)
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
