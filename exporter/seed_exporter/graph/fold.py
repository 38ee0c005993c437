"""Fold batch norms into the convolutions before them: fewer numbers, and channels whose errors count alike.

Behind an unfolded batch norm the error of a channel counts by the norm's factor, which one quantization step for a
whole matrix can't follow. ONNX Runtime folds the same pairs when it opens a model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from seed_exporter.graph.edit import FreshNames, drop_unused, with_graph
from seed_exporter.graph.index import Consumer, GraphIndex, with_uses
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph, Weight, stays_inline
from seed_runtime.format.dtypes import BY_NAME

F64 = npt.NDArray[np.float64]

_EPSILON: Final = 1e-5
"""ONNX's default for the attribute of this name."""
_TYPE: Final = "float32"
"""Element type of what is folded: products of narrower types may leave their range."""


CONVOLUTIONS: Final = frozenset({"Conv", "ConvTranspose"})
"""Operators that batch norms are folded into."""


def fold_batch_norms(graph: Graph, operators: Collection[str] = CONVOLUTIONS) -> Graph:
    """Return a graph without the batch norms that follow a convolution which nothing else reads.

    It computes the same but for rounding. The convolution's weight keeps its name. What isn't known to be constant, or
    has several readers, stays as it is.

    Args:
        graph: the graph; it stays as it is.
        operators: convolutions that are looked at.
    """
    index = GraphIndex(graph)
    inline = {tensor.name: tensor for tensor in graph.model.graph.initializer if tensor.name not in graph.weights}
    for value in graph.model.graph.input:
        inline.pop(value.name, None)  # a default isn't constant
    names = FreshNames(graph)
    folded: dict[int, _Folded] = {}
    dropped: set[int] = set()
    for node in graph.model.graph.node:
        found = _foldable(node, graph, index, inline, operators)
        if found is not None:
            folded[id(found.convolution)] = _fold(found, names)
            dropped.add(id(node))
    if not folded:
        return graph
    nodes, held, initializers = [], dict(graph.weights), list(graph.model.graph.initializer)
    for node in graph.model.graph.node:
        if id(node) in dropped:
            continue
        each = folded.get(id(node))
        if each is None:
            nodes.append(node)
            continue
        nodes.append(each.node)
        held[each.weight.name] = each.weight
        initializers.append(_initializer(each.bias))
        if not stays_inline(each.bias.dtype, each.bias.size):
            held[each.bias.name] = each.bias
    edited = drop_unused(copy_of(graph.model.graph, node=nodes, initializer=initializers))
    return with_uses(with_graph(replace(graph, weights=held), edited))


@dataclass(frozen=True, eq=False)
class _Pair:
    """A convolution and the batch norm behind it, with its vectors."""

    convolution: onnx.NodeProto
    norm: onnx.NodeProto
    weight: Weight
    output_axis: int
    groups: int
    bias: F64
    scale: F64
    offset: F64
    mean: F64
    variance: F64


@dataclass(frozen=True, eq=False)
class _Folded:
    """A convolution that computes what the pair did."""

    node: onnx.NodeProto
    weight: Weight
    bias: Weight


def _foldable(
    norm: onnx.NodeProto,
    graph: Graph,
    index: GraphIndex,
    inline: Mapping[str, onnx.TensorProto],
    operators: Collection[str],
) -> _Pair | None:
    attributes = {attribute.name: attribute for attribute in norm.attribute}
    if norm.op_type != "BatchNormalization" or norm.domain or any(norm.output[1:]) or len(norm.input) != 5:
        return None
    if "training_mode" in attributes and attributes["training_mode"].i:
        return None
    convolution = index.producers.get(norm.input[0])
    if convolution is None or convolution.op_type not in operators or convolution.domain:
        return None
    if index.consumers.get(norm.input[0]) != (Consumer(norm, 0),) or norm.input[0] in index.returned:
        return None
    weight = graph.weights.get(convolution.input[1])
    if weight is None or weight.dtype.name != _TYPE or len(index.consumers[weight.name]) != 1:
        return None
    groups = next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)
    transposed = convolution.op_type == "ConvTranspose"
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    vectors = [_vector(name, channels, graph, inline) for name in norm.input[1:]]
    has_bias = len(convolution.input) > 2 and convolution.input[2]
    bias = _vector(convolution.input[2], channels, graph, inline) if has_bias else np.zeros(channels)
    if bias is None or any(vector is None for vector in vectors):
        return None
    scale, offset, mean, variance = (vector for vector in vectors if vector is not None)
    if variance.min(initial=0) < 0:
        return None
    return _Pair(convolution, norm, weight, 1 if transposed else 0, groups, bias, scale, offset, mean, variance)


def _fold(pair: _Pair, names: FreshNames) -> _Folded:
    epsilon = next((each.f for each in pair.norm.attribute if each.name == "epsilon"), _EPSILON)
    factor = pair.scale / np.sqrt(pair.variance + np.float64(np.float32(epsilon)))
    data = pair.weight.data.astype(np.float64)
    if pair.output_axis:  # [in, out / groups, ...], the groups one after the other along the inputs
        grouped = data.reshape(pair.groups, -1, *data.shape[1:])
        factors = factor.reshape(pair.groups, 1, -1, *[1] * (data.ndim - 2))
        data = (grouped * factors).reshape(data.shape)
    else:
        data = data * factor.reshape(-1, *[1] * (data.ndim - 1))
    bias = (pair.bias - pair.mean) * factor + pair.offset
    dtype = BY_NAME[_TYPE]
    name = names.take(f"{pair.norm.input[2]}.folded")
    weight = Weight(pair.weight.name, dtype, pair.weight.shape, data.astype(np.float32))
    node = onnx.NodeProto()
    node.CopyFrom(pair.convolution)
    del node.input[2:]
    node.input.append(name)
    node.output[0] = pair.norm.output[0]
    return _Folded(node, weight, Weight(name, dtype, bias.shape, bias.astype(np.float32)))


def _vector(name: str, length: int, graph: Graph, inline: Mapping[str, onnx.TensorProto]) -> F64 | None:
    """Return the float64 values of a constant float32 vector; None where it is none."""
    if name in graph.weights:
        values = graph.weights[name].data
    elif name in inline and inline[name].data_type == onnx.TensorProto.FLOAT:
        values = onnx.numpy_helper.to_array(inline[name])
    else:
        return None
    usable = values.dtype == np.float32 and values.shape == (length,) and np.isfinite(values).all()
    return values.astype(np.float64) if usable else None


def _initializer(bias: Weight) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=bias.name, data_type=bias.dtype.code, dims=bias.shape)
    if stays_inline(bias.dtype, bias.size):
        tensor.raw_data = bias.data.tobytes()
    return tensor
