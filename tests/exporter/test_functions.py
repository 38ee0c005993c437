"""Functions of a model's own, whose opsets may differ from the model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.onnx_models import W, X, check_same, make, tensor

MATMUL = helper.make_node("MatMul", ["x", "w"], ["h"])
CALL = helper.make_node("F", ["h"], ["y"], domain="mine")


def function(
    nodes: Sequence[onnx.NodeProto], opset: int, domains: Sequence[tuple[str, int]] = (), name: str = "F"
) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*each) for each in domains)]
    return helper.make_function("mine", name, ["a"], ["b"], nodes, opsets)


def model(functions: Sequence[onnx.FunctionProto], opset: int = 17, main: onnx.NodeProto = MATMUL) -> onnx.ModelProto:
    return make([main, CALL], [tensor(W, "w")], domains=["mine"], opset=opset, functions=functions)


def relu() -> onnx.NodeProto:
    return helper.make_node("Relu", ["a"], ["b"])


@pytest.mark.parametrize("opset", [7, 13, 17, 18])
def test_a_function_of_another_opset_is_expanded_where_its_operators_are_the_same(opset: int, tmp_path: Path):
    # ONNX Runtime itself runs the original, so that the outputs can be compared.
    graph = check_same(model([function([relu()], opset)]), tmp_path)
    assert [node.op_type for node in graph.model.graph.node] == ["MatMul", "Relu"]


def test_the_model_follows_a_function_that_needs_a_newer_opset():
    normalize = helper.make_node("LayerNormalization", ["a", "a"], ["b"])
    graph = load(model([function([normalize], 17)], opset=13))
    assert {each.domain: each.version for each in graph.model.opset_import}[""] == 17


def test_an_operator_that_changed_in_between_is_refused_with_the_reason():
    softmax = helper.make_node("Softmax", ["x"], ["h"], axis=1)
    with pytest.raises(UnsupportedError) as caught:
        load(model([function([helper.make_node("Unsqueeze", ["a"], ["b"], axes=[0])], 11)], main=softmax))
    assert str(caught.value) == (
        "function 'F' is written for opset 11 of ai.onnx and other parts of the model for 17, between which its "
        "operators changed; export all of it for one opset"
    )


def test_functions_may_call_functions_and_use_domains_that_the_model_does_not(tmp_path: Path):
    inner = function([helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft")], 13, [("com.microsoft", 1)], "G")
    outer = function([helper.make_node("G", ["a"], ["b"], domain="mine")], 15, [("mine", 2)])
    graph = check_same(model([outer, inner]), tmp_path, {"x": np.abs(X["x"])})
    assert [node.op_type for node in graph.model.graph.node] == ["MatMul", "Gelu"]
    assert {each.domain for each in graph.model.opset_import} >= {"", "com.microsoft"}
