"""A skeleton states the shapes that inference misses, and no others."""

from __future__ import annotations

import onnx
from onnx import helper

from seed_exporter.loaders import load
from seed_exporter.skeletons import builder_for
from tests.exporter.support.onnx_models import info, make, weights


def reshaping(stated: bool) -> onnx.ModelProto:
    """Make a model that reshapes to a computed shape: inference finds nothing behind it, so only stated shapes help."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["h", "s"], ["r"]),
        helper.make_node("Relu", ["r"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    known = [info(name, ("n", 16)) for name in ("h", "r", "a", "b")] if stated else []
    return make(nodes, weights((16, 16), (16, 5)), inputs=[info("x", ("n", 16))], value_info=known)


def test_only_shapes_that_inference_misses_are_stated():
    graph = load(reshaping(stated=True))
    built = onnx.ModelProto.FromString(builder_for(graph).build(list(graph.weights)).data)
    reshape = next(node for node in built.graph.node if node.op_type == "Reshape")
    assert [value.name for value in built.graph.value_info] == [reshape.output[0]]
    graph = load(reshaping(stated=False))
    assert not onnx.ModelProto.FromString(builder_for(graph).build(list(graph.weights)).data).graph.value_info
