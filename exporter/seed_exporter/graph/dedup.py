"""Store a weight once that the model holds several times: as it is, reshaped, or transposed.

Tied embeddings come out of exporters as two tensors, often one the transpose of the other.
Identical tensors share one initializer. Of the others one copy stays, and a Reshape or Transpose node makes
the second from it; ONNX Runtime folds that node into a constant when it opens the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx

from seed_exporter.graph.edit import FreshNames, drop_initializers, prepend, rename_uses, with_graph
from seed_exporter.graph.index import Consumer, GraphIndex
from seed_exporter.graph.model import Graph, Weight

DERIVED_MIN: Final = 4096
"""Size from which a weight is derived from another [B]: a Transpose node and its names take some 50 bytes."""

# Only inputs where a computed value costs an operator nothing. Quantized operators need constant
# scales and zero points, and fusions look for constant norms and biases.
_TAKES_COMPUTED: Final = frozenset({("MatMul", 0), ("MatMul", 1), ("Gemm", 0), ("Gemm", 1), ("Gather", 0)})
"""Operators and inputs that may read a derived weight."""


def deduplicate(graph: Graph) -> Graph:
    """Return a graph that computes the same and holds each weight once."""
    return share_rearranged(share_small(share_identical(graph)))


def share_identical(graph: Graph) -> Graph:
    """Make every reader of a repeated weight read its first copy."""
    new_names: dict[str, str] = {}
    fixed = _fixed_names(graph)
    seen: dict[object, list[Weight]] = {}
    for weight in graph.weights.values():
        if weight.name in fixed:
            continue
        key = (weight.dtype.code, weight.shape, _sample(weight.data))
        for first in seen.setdefault(key, []):
            if _same_bits(first.data, weight.data):
                new_names[weight.name] = first.name
                break
        else:
            seen[key].append(weight)
    return _replace_names(graph, new_names)


def share_small(graph: Graph) -> Graph:
    """Do the same with the small constants inside the model: exporters repeat 0.5 a hundred times."""
    fixed = _fixed_names(graph)
    new_names: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for tensor in graph.model.graph.initializer:
        if tensor.name in graph.weights or tensor.name in fixed or not tensor.HasField("raw_data"):
            continue
        nameless = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=tensor.raw_data)
        first = seen.setdefault(nameless.SerializeToString(deterministic=True), tensor.name)
        if first != tensor.name:
            new_names[tensor.name] = first
    return _replace_names(graph, new_names)


def share_rearranged(graph: Graph) -> Graph:
    """Make reshaped and transposed copies of a weight from the one copy that stays."""
    fixed = _fixed_names(graph)
    large = [
        weight
        for weight in graph.weights.values()
        if weight.size >= DERIVED_MIN and weight.dtype.bits >= 8 and weight.name not in fixed
    ]
    consumers = GraphIndex(graph).consumers
    names = FreshNames(graph)
    kept: dict[object, list[Weight]] = {}
    derived: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    shapes: list[onnx.TensorProto] = []
    # Tables come first: rows that are read one by one must not be behind a computed transpose.
    for weight in sorted(large, key=lambda each: not _is_table(consumers.get(each.name, ()))):
        takes_computed = all(
            not node.domain and (node.op_type, index) in _TAKES_COMPUTED
            for node, index in consumers.get(weight.name, ())
        )
        for op, source in _sources(weight, kept) if takes_computed else ():
            derived.add(weight.name)
            # The node gives the value its old name, so that its readers need no change.
            if op == "Transpose":
                nodes.append(onnx.helper.make_node("Transpose", [source.name], [weight.name], perm=[1, 0]))
            else:
                shapes.append(_shape_tensor(names.take("shape"), weight.shape))
                nodes.append(onnx.helper.make_node("Reshape", [source.name, shapes[-1].name], [weight.name]))
            break
        else:
            kept.setdefault(_key(weight, weight.data), []).append(weight)
    if not derived:
        return graph
    return with_graph(graph, prepend(drop_initializers(graph.model.graph, derived), nodes, shapes))


def _sources(weight: Weight, kept: dict[object, list[Weight]]) -> Iterator[tuple[str, Weight]]:
    """Yield the weights from which this one can be made, and the operator that makes it."""
    for source in kept.get(_key(weight, weight.data), ()):
        if _same_bits(source.data.reshape(-1), weight.data.reshape(-1)):
            yield "Reshape", source
    if len(weight.shape) == 2:
        for source in kept.get(_key(weight, weight.data.T), ()):
            if source.shape == weight.shape[::-1] and _same_bits(source.data, weight.data.T):
                yield "Transpose", source


def _is_table(consumers: Sequence[Consumer]) -> bool:
    return any(consumer.node.op_type == "Gather" for consumer in consumers)


def _shape_tensor(name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    data = np.array(shape, "<i8").tobytes()
    return onnx.TensorProto(name=name, data_type=onnx.TensorProto.INT64, dims=[len(shape)], raw_data=data)


def _replace_names(graph: Graph, new_names: dict[str, str]) -> Graph:
    """Make all readers of some initializers read others, and remove the former."""
    if not new_names:
        return graph
    return with_graph(graph, drop_initializers(rename_uses(graph.model.graph, new_names), new_names.keys()))


def _fixed_names(graph: Graph) -> frozenset[str]:
    """Return the initializers that must keep their own name: inputs, what a graph returns or a nested graph reuses."""
    index = GraphIndex(graph)
    inputs = (value.name for value in index.graph.input)
    return index.returned.union(inputs, (name for name, graphs in index.definitions.items() if graphs > 1))


def _key(weight: Weight, data: np.ndarray) -> tuple[int, int, bytes]:
    return weight.dtype.code, weight.count, _sample(data)


def _sample(data: np.ndarray) -> bytes:
    """Return some 64 elements in the order of iteration, to tell most tensors apart without reading them."""
    places = np.linspace(0, data.size - 1, 64).astype(np.int64)
    return data[np.unravel_index(places, data.shape)].tobytes()


def _same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether the bits are the same: NaN equals itself and -0.0 differs from 0.0."""
    bits = np.dtype(f"u{first.dtype.itemsize}")
    return first.shape == second.shape and np.array_equal(first.view(bits), _as_bits(second, bits))


def _as_bits(data: np.ndarray, bits: np.dtype) -> np.ndarray:
    # A transposed array can't be viewed as another type along its strided axis in every NumPy.
    return data.T.view(bits).T if not data.flags.c_contiguous and data.ndim == 2 else data.view(bits)
