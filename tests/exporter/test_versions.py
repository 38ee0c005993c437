"""IR versions and opsets: as low as the graph allows, so that devices need no newer ONNX Runtime than it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter.loaders import load
from seed_runtime.backends.onnxruntime_releases import RELEASES
from tests.exporter.support.onnx_models import W, check_same, constant, info, make, tensor

NEWEST = onnx.defs.onnx_opset_version()
NEWER = pytest.mark.skipif(NEWEST < 26, reason="this onnx knows no opset 26")


def versions(model: onnx.ModelProto) -> tuple[int, int]:
    lowered = load(model).model
    return lowered.ir_version, lowered.opset_import[0].version


def matmul(**options) -> onnx.ModelProto:
    return make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")], **options)


def test_the_lowest_ir_version_is_written_that_the_graph_needs(tmp_path: Path):
    assert versions(matmul(opset=17, ir=14)) == (8, 17)
    assert versions(matmul(opset=13, ir=14)) == (7, 13)
    assert versions(matmul(opset=17, ir=4)) == (4, 17)
    check_same(matmul(opset=17, ir=10), tmp_path)


def test_types_say_which_ir_version_they_need():
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT8E4M3FN),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    assert versions(make(nodes, opset=19, ir=11)) == (9, 19)


def test_operators_that_only_took_more_types_since_are_lowered_and_others_are_not():
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    assert versions(make(nodes, [tensor(W, "w")], opset=min(NEWEST, 25), ir=10)) == (10, 21)


@NEWER
def test_an_operator_that_is_newer_keeps_its_opset_wherever_it_stands():
    axis = constant(np.array(1), "axis")
    assert versions(make([axis, helper.make_node("CumProd", ["x", "axis"], ["y"])], opset=NEWEST, ir=13)) == (13, 26)
    body = helper.make_graph([helper.make_node("CumProd", ["x", "axis"], ["p"])], "b", [], [info("p", None)])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["q"])], "b", [], [info("q", None)])
    nodes = [axis, constant(np.array(True), "c")]
    model = make([*nodes, helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)], opset=NEWEST)
    model.ir_version = 13
    graph = load(model)
    assert (graph.model.ir_version, graph.model.opset_import[0].version) == (13, 26)
    assert graph.notes == ("devices need ONNX Runtime 1.25 or newer for this model (IR version 13, opset 26)",)
    model = make([*nodes, helper.make_node("If", ["c"], ["y"], then_branch=other, else_branch=other)], opset=NEWEST)
    assert versions(model)[1] == 21


def test_what_came_after_this_onnx_is_left_as_it_is():
    graph = load(matmul(opset=90, ir=80))
    assert (graph.model.ir_version, graph.model.opset_import[0].version) == (80, 90)
    assert graph.notes == ("no ONNX Runtime is known that takes this model (IR version 80, opset 90)",)


def test_models_are_lowered_to_what_the_oldest_onnx_runtime_takes():
    from seed_exporter.graph.versions import OPSET

    assert next(iter(RELEASES.values())) == (10, OPSET)
