"""Find what parts a model's values have in a training: the output that is compared, the head, scales, batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto, numpy_helper

from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import attribute_of, input_of
from seed_exporter.graph.model import Graph
from seed_exporter.training.prepare import STATISTICS, TRAINED_TYPE, is_vector
from seed_runtime.errors import UnsupportedError
from seed_runtime.skeletons.training import FULL, HEAD, SMALL

_SAME: Final = frozenset({"Identity", "Dropout"})
"""Operators that a device passes values through."""
_SPREADING: Final = frozenset({"Expand", "Reshape", "Unsqueeze"})
"""Operators that repeat a sum, or give it its axis back."""
_IMAGE_RANK: Final = 4
"""Rank from which on classes are the second axis, as channels are."""


@dataclass(frozen=True)
class Norm:
    """A batch norm whose statistics can be estimated again.

    Attributes:
        node: the batch norm.
        mean: name of its mean.
        variance: name of its variance.
    """

    node: onnx.NodeProto
    mean: str
    variance: str


@dataclass(frozen=True)
class Roles:
    """The parts that values have in a training.

    Attributes:
        output: the output that is compared with the target: the first one of floats.
        scores: what a softmax or a sigmoid makes it of; the output itself where there is neither.
        axis: axis of the classes in `scores`; None where each element is a decision of its own.
        levels: set of each tensor that can be trained, the smallest one that it is in.
        norms: batch norms in their order.
        features: what the head multiplies; "" where the scores aren't linear in any value.
    """

    output: onnx.ValueInfoProto
    scores: str
    axis: int | None
    levels: Mapping[str, str]
    norms: tuple[Norm, ...]
    features: str


def find_roles(graph: Graph) -> Roles:
    """Find the roles in a prepared graph.

    Raises:
        UnsupportedError: no output is a tensor of float32 of a known rank, from 1 on.
    """
    index = GraphIndex(graph)
    output = next((each for each in graph.model.graph.output if _is_comparable(each)), None)
    if output is None:
        raise UnsupportedError(
            "--finetune-graph needs an output of float32 that is compared with a target, with a stated number of axes; "
            "this model has none, so export it without --finetune-graph"
        )
    scores, axis = _scores(index, output)
    features, head = _head(graph, index, scores)
    norms = tuple(_norms(graph))
    statistics = {name for norm in norms for name in (norm.mean, norm.variance)}
    fixed = {value.name for value in (*graph.model.graph.input, *graph.model.graph.output)}
    levels = {
        weight.name: HEAD if weight.name in head else SMALL if is_vector(weight) else FULL
        for weight in graph.weights.values()
        if weight.dtype.name == TRAINED_TYPE and weight.name not in statistics | fixed
    }
    return Roles(output, scores, axis, levels, norms, features)


def _is_comparable(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.elem_type == TensorProto.FLOAT and tensor.HasField("shape") and len(tensor.shape.dim) > 0


def _scores(index: GraphIndex, output: onnx.ValueInfoProto) -> tuple[str, int | None]:
    rank = len(output.type.tensor_type.shape.dim)
    node = _maker(index, output.name)
    if node is not None and node.op_type == "Sigmoid":
        return node.input[0], None
    found = _softmax_input(index, node, rank) if node is not None else None
    return found or (output.name, 1 if rank >= _IMAGE_RANK else rank - 1)


def _softmax_input(index: GraphIndex, node: onnx.NodeProto, rank: int) -> tuple[str, int] | None:
    """Return what a node is the softmax of, and the axis; None for others.

    Exporters write a softmax as one node, as one on rows between a Flatten and a Reshape back (old opsets), or as the
    quotient of an exponential and its sum.
    """
    if node.op_type in ("Softmax", "LogSoftmax"):
        return node.input[0], int(attribute_of(node, "axis", -1)) % rank
    if node.op_type == "Reshape":
        inner, shape = (_maker(index, name) for name in node.input)
        rows = (
            _maker(index, inner.input[0]) if inner is not None and inner.op_type in ("Softmax", "LogSoftmax") else None
        )
        if rows is not None and shape is not None and (rows.op_type, shape.op_type) == ("Flatten", "Shape"):
            is_same = rows.input[0] == shape.input[0] and attribute_of(rows, "axis", 1) in (-1, rank - 1)
            return (rows.input[0], rank - 1) if is_same else None
    if node.op_type == "Div":
        above, below = (_maker(index, name, _SAME | _SPREADING) for name in node.input)
        if above is None or below is None or (above.op_type, below.op_type) != ("Exp", "ReduceSum"):
            return None
        shifted = _maker(index, above.input[0])
        is_same = below.input[0] == above.output[0] and _axes(index, below) in ([-1], [rank - 1])
        return (shifted.input[0], rank - 1) if is_same and shifted is not None and shifted.op_type == "Sub" else None
    return None


def _axes(index: GraphIndex, node: onnx.NodeProto) -> list[int]:
    """Return the axes of a reduction, where they are constant."""
    found = [each for each in index.graph.initializer if each.name == input_of(node, 1)]
    return [int(axis) for axis in numpy_helper.to_array(found[0])] if found else []


def _maker(index: GraphIndex, name: str, passing: Set[str] = _SAME) -> onnx.NodeProto | None:
    """Return the node that computes a value, not one that only passes it on."""
    node = index.producers.get(name)
    while node is not None and node.op_type in passing:
        node = index.producers.get(node.input[0])
    return node


def _head(graph: Graph, index: GraphIndex, scores: str) -> tuple[str, frozenset[str]]:
    """Return what the last layer multiplies, and its weight and bias; "" and nothing where it isn't linear."""
    node, bias = _maker(index, scores), ""
    if node is not None and node.op_type == "Add":
        product, bias = sorted(node.input, key=lambda name: name in graph.weights)
        node = _maker(index, product)
    if node is None or node.op_type not in ("Gemm", "MatMul"):
        return "", frozenset()
    plain = all(attribute_of(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
    weight, bias = node.input[1], bias or input_of(node, 2)
    fits = [
        name in graph.weights and graph.weights[name].dtype.name == TRAINED_TYPE for name in (weight, bias or weight)
    ]
    if not plain or not all(fits) or attribute_of(node, "transA", 0) or len(graph.weights[weight].shape) != 2:
        return "", frozenset()
    if any(len(index.consumers[name]) > 1 for name in (weight, bias or weight)):
        return "", frozenset()  # tied to what makes the features
    return node.input[0], frozenset({weight, bias} - {""})


def _norms(graph: Graph) -> list[Norm]:
    names = [(node, [input_of(node, at) for at in STATISTICS]) for node in graph.model.graph.node]
    return [
        Norm(node, *statistics)
        for node, statistics in names
        if node.op_type == "BatchNormalization"
        and all(name in graph.weights and graph.weights[name].dtype.name == TRAINED_TYPE for name in statistics)
        and not attribute_of(node, "training_mode", 0)
    ]
