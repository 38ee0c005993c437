"""What reads a weight: layers and tables that a target has operators for, or anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from seed_exporter.graph.index import Consumer, GraphIndex
from seed_exporter.graph.messages import attribute_of
from seed_exporter.graph.model import Weight


@dataclass(frozen=True)
class Layer:
    """A MatMul or Gemm whose second operand is the weight.

    Attributes:
        node: the node.
        outputs_first: True if the weight is `(outputs, inputs)`, False if it is `(inputs, outputs)`.
    """

    node: onnx.NodeProto
    outputs_first: bool


@dataclass(frozen=True)
class Table:
    """A Gather of rows of the weight."""

    node: onnx.NodeProto


Reader = Layer | Table


def readers_of(index: GraphIndex, weight: Weight) -> Sequence[Reader] | None:
    """Return all readers of a weight; None where one of them is neither a layer nor a table."""
    if len(weight.shape) != 2 or weight.name in index.returned:
        return None
    found: list[Reader] = []
    for consumer in index.consumers.get(weight.name, ()):
        reader = _readers(index, consumer)
        if reader is None:
            return None
        found += reader
    return found or None


def _readers(index: GraphIndex, consumer: Consumer) -> Sequence[Reader] | None:
    node, place = consumer
    if not _is_main(index, node) or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Gather" and place == 0 and attribute_of(node, "axis", 0) in (0, -2):
        return [Table(node)]
    if node.op_type == "Transpose" and tuple(attribute_of(node, "perm", (1, 0))) == (1, 0):
        behind = index.consumers.get(node.output[0], ())
        if node.output[0] in index.returned or not behind:
            return None
        layers = [Layer(each.node, True) for each in behind if _is_matmul(index, each)]
        return layers if len(layers) == len(behind) else None
    if _is_matmul(index, consumer):
        return [Layer(node, False)]
    if (
        (node.op_type, place) == ("Gemm", 1)
        and attribute_of(node, "alpha", 1.0) == attribute_of(node, "beta", 1.0) == 1
        and not attribute_of(node, "transA", 0)
    ):
        return [Layer(node, bool(attribute_of(node, "transB", 0)))]
    return None


def _is_matmul(index: GraphIndex, consumer: Consumer) -> bool:
    node, place = consumer
    return (node.op_type, place) == ("MatMul", 1) and _is_main(index, node) and node.input[0] != node.input[1]


def _is_main(index: GraphIndex, node: onnx.NodeProto) -> bool:
    return bool(node.output) and node.output[0] in index.producers
