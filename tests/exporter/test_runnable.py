"""A model that ONNX Runtime can't run is refused, with the operator's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.onnx_models import W, info, make, tensor


def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Frobnicate", ["t"], ["y"], domain="my.domain", name="layer7"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        check_runnable(load(make(nodes, [tensor(W, "w")], domains=["my.domain"])))
    assert all(part in str(caught.value) for part in ("Frobnicate", "my.domain", "layer7"))
    assert "\n" not in str(caught.value)


def test_a_type_that_an_operator_lacks_is_named(tmp_path: Path):
    inputs = [info("x", ["n"], TensorProto.UINT16)]
    nodes = [helper.make_node("Sin", ["x"], ["y"], name="wave")]
    with pytest.raises(UnsupportedError, match="Sin"):
        check_runnable(load(make(nodes, inputs=inputs, outputs=[info("y", None, TensorProto.UINT16)])))


def test_an_invalid_model_is_refused():
    with pytest.raises(UnsupportedError):
        check_runnable(load(make([helper.make_node("MatMul", ["x", "nowhere"], ["y"])])))
