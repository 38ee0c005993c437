"""Edit a model so that a device can train it: its opset, and the vectors that are trained.

A tensor that is trained must be one that seeds store by itself, so vectors that stand inside the model become weights.
Exporters and loaders store equal vectors once. What is equal before a training isn't equal after it, so those that
several norms or biases share are split. Matrices that are shared are tied by design and stay so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from seed_exporter.gradients.typed import OPSET, typed_model
from seed_exporter.graph.edit import FreshNames, drop_unused, with_graph
from seed_exporter.graph.index import GraphIndex, with_uses
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of
from seed_runtime.format.dtypes import BY_NAME

TRAINED_TYPE: Final = "float32"
"""Element type of tensors that are trained: steps get lost in narrower ones."""
STATISTICS: Final = (3, 4)
"""Inputs of a batch norm that are its mean and variance."""
_VECTORS: Final[Mapping[str, tuple[int, ...]]] = {
    "BatchNormalization": (1, 2, *STATISTICS),
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
}
"""Inputs that are scales and biases, by operator."""
BIASED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators behind which an Add adds a bias."""


def prepare(graph: Graph) -> Graph:
    """Return the graph at an opset that gradients have, with each vector that is trained as a weight of its own.

    It computes the same, and its seeds hold a training graph.

    Raises:
        UnsupportedError: onnx can't convert the model to the opset.
    """
    if opset_of(graph.model) < OPSET:
        graph = replace(graph, model=typed_model(graph))
    main, names = copy_of(graph.model.graph), FreshNames(graph)
    index = GraphIndex(main)
    inline = {tensor.name: tensor for tensor in main.initializer if tensor.name not in graph.weights}
    fixed = {value.name for value in (*main.input, *main.output)}
    fixed |= {name for name, graphs in index.definitions.items() if graphs > 1}
    held, taken = dict(graph.weights), set[str]()
    places = [*_places(main, index)]
    uses = Counter(node.input[place] for node, place in places)
    for node, place in places:
        name = node.input[place]
        weight = held.get(name) or _weight_of(inline.get(name))
        if weight is None or not is_vector(weight) or name in fixed:
            continue
        if name in taken or (name in inline and len(index.consumers[name]) > uses[name]):
            weight = replace(weight, name=names.take(name))
            node.input[place] = weight.name
        taken.add(name)
        held[weight.name] = weight
    others = [tensor for tensor in main.initializer if tensor.name not in held]
    stated = [TensorProto(name=each.name, data_type=each.dtype.code, dims=each.shape) for each in held.values()]
    edited = drop_unused(copy_of(main, initializer=[*stated, *others]))
    return with_uses(with_graph(replace(graph, weights=held, trains=True), edited))


def is_vector(weight: Weight) -> bool:
    """Return whether a weight is of the type that is trained, and has one axis at most along which it differs."""
    return weight.dtype.name == TRAINED_TYPE and sum(size > 1 for size in weight.shape) <= 1


def _places(main: onnx.GraphProto, index: GraphIndex) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Yield the inputs of nodes that are scales, biases and statistics."""
    for node in main.node:
        places = _VECTORS.get(node.op_type, ()) if node.domain in ("", "ai.onnx", "com.microsoft") else ()
        if node.op_type == "Add":
            makers = [index.producers.get(name) for name in node.input]
            places = tuple(1 - at for at, maker in enumerate(makers) if maker and maker.op_type in BIASED)
        yield from ((node, place) for place in places if place < len(node.input))


def _weight_of(tensor: onnx.TensorProto | None) -> Weight | None:
    """Return a tensor inside the model as a weight; None for other types than those that are trained."""
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return None
    data = np.ascontiguousarray(numpy_helper.to_array(tensor), np.float32)
    return Weight(tensor.name, BY_NAME[TRAINED_TYPE], data.shape, data)
