"""Models whose inputs and outputs are text, maps, sequences or optional, as scikit-learn's converters write them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 8
LABELS = ("cat", "dög", "a\x1b[31mred")
"""Class names; the last one would turn a terminal red."""
WORDS = ("cat", "dog", "bird")


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _tensor(name: str, code: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, shape)


def _scores(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that make p, scores of three classes, of x."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["p"])]
    return nodes, {"w": rng.standard_normal((FEATURES, 3)).astype(np.float32)}


_X = _tensor("x", TensorProto.FLOAT, "n", FEATURES)
_P = _tensor("p", TensorProto.FLOAT, "n", 3)


def labels(rng: np.random.Generator) -> onnx.ModelProto:
    """Return a model with the name of the best class, text, and the scores."""
    nodes, weights = _scores(rng)
    nodes += [
        helper.make_node("ArgMax", ["h"], ["best"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=LABELS
        ),
    ]
    return _model(nodes, [_X], [_tensor("label", TensorProto.STRING, "n"), _P], weights)


def zipmap(rng: np.random.Generator, *, text: bool = False) -> onnx.ModelProto:
    """Return a model whose scores are a list of maps, by number or by text."""
    nodes, weights = _scores(rng)
    keys = {"classlabels_strings": LABELS} if text else {"classlabels_int64s": [10, 20, 30]}
    nodes.append(helper.make_node("ZipMap", ["p"], ["prob"], domain="ai.onnx.ml", **keys))
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_map_type_proto(TensorProto.STRING if text else TensorProto.INT64, number)
    return _model(nodes, [_X], [helper.make_value_info("prob", helper.make_sequence_type_proto(kind))], weights)


def sequence(rng: np.random.Generator) -> onnx.ModelProto:
    """Return a model that answers with a sequence: a tensor [1, 3] for each row of x."""
    nodes, weights = _scores(rng)
    nodes.append(helper.make_node("SplitToSequence", ["p"], ["rows"], axis=0, keepdims=1))
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 3]))
    return _model(nodes, [_X], [helper.make_value_info("rows", kind)], weights)


def optional(rng: np.random.Generator, *, missing: bool = False) -> onnx.ModelProto:
    """Return a model with an optional output beside the scores, which has a value or never one."""
    nodes, weights = _scores(rng)
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
    nodes.append(
        helper.make_node("Optional", [], ["o"], type=kind) if missing else helper.make_node("Optional", ["p"], ["o"])
    )
    return _model(nodes, [_X], [_P, helper.make_value_info("o", helper.make_optional_type_proto(kind))], weights)


def text(rng: np.random.Generator) -> onnx.ModelProto:
    """Return a text classifier: words s [n], their numbers, scores of three classes."""
    encoder = {"keys_strings": WORDS, "values_int64s": [0, 1, 2], "default_int64": 3}
    nodes = [
        helper.make_node("LabelEncoder", ["s"], ["number"], domain="ai.onnx.ml", **encoder),
        helper.make_node("Gather", ["w", "number"], ["y"]),
    ]
    weights = {"w": rng.standard_normal((4, 3)).astype(np.float32)}
    return _model(nodes, [_tensor("s", TensorProto.STRING, "n")], [_tensor("y", TensorProto.FLOAT, "n", 3)], weights)


def refused(kind: str) -> onnx.ModelProto:
    """Return a model with an input or output that no array can be."""
    floats = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    if kind == "bfloat16 output":
        node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
        return _model([node], [_X], [_tensor("y", TensorProto.BFLOAT16, "n", FEATURES)])
    if kind == "bfloat16 input":
        node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
        return _model([node], [_tensor("x", TensorProto.BFLOAT16, 2)], [_tensor("y", TensorProto.FLOAT, 2)])
    if kind == "sequence input":
        node = helper.make_node("ConcatFromSequence", ["q"], ["y"], axis=0)
        value = helper.make_value_info("q", helper.make_sequence_type_proto(floats))
        return _model([node], [value], [_tensor("y", TensorProto.FLOAT, "n")])
    node = helper.make_node("DictVectorizer", ["d"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    value = helper.make_value_info("d", helper.make_map_type_proto(TensorProto.STRING, number))
    return _model([node], [value], [_tensor("y", TensorProto.FLOAT, 1, 2)])
