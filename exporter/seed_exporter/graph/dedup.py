"""Store a weight once that the model holds several times: as it is, reshaped, or transposed.

Tied embeddings come out of exporters as two tensors, often one the transpose of the other.
Identical tensors share one initializer. Of the others one copy stays, and a Reshape or Transpose node makes
the second from it; ONNX Runtime folds that node into a constant when it opens the model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from seed_exporter.graph.edit import Names, keep_initializers, rename_uses, replace
from seed_exporter.graph.model import Graph, Weight, all_graphs, find_uses

DERIVED_MIN = 4096  # [B]: a Transpose node with its names costs some 50 bytes of skeleton

# Only where an operator takes a computed value as gladly as a constant. Quantized operators want
# constant scales and zero points, and fusions look for constant norms and biases.
_TAKES_COMPUTED = {("MatMul", 0), ("MatMul", 1), ("Gemm", 0), ("Gemm", 1), ("Gather", 0)}


def share_identical(graph: Graph) -> None:
    """Make every reader of a repeated weight read its first copy."""
    new_names: dict[str, str] = {}
    fixed = _names_that_stay(graph.model)
    seen: dict[object, list[Weight]] = {}
    for weight in graph.weights.values():
        if weight.name in fixed:
            continue
        key = (weight.dtype.code, weight.shape, _sample(weight.data))
        for first in seen.setdefault(key, []):
            if _same(first.data, weight.data):
                new_names[weight.name] = first.name
                break
        else:
            seen[key].append(weight)
    _alias(graph, new_names)


def share_small(graph: Graph) -> None:
    """The same for the small constants inside the model: exporters repeat 0.5 a hundred times."""
    fixed = _names_that_stay(graph.model)
    new_names: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for tensor in graph.model.graph.initializer:
        if tensor.name in graph.weights or tensor.name in fixed or not tensor.HasField("raw_data"):
            continue
        nameless = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=tensor.raw_data)
        first = seen.setdefault(nameless.SerializeToString(deterministic=True), tensor.name)
        if first != tensor.name:
            new_names[tensor.name] = first
    _alias(graph, new_names)


def share_rearranged(graph: Graph, names: Names) -> None:
    """Make reshaped and transposed copies of a weight from the one copy that stays."""
    fixed = _names_that_stay(graph.model)
    large = [
        weight
        for weight in graph.weights.values()
        if weight.size >= DERIVED_MIN and weight.dtype.bits >= 8 and weight.name not in fixed
    ]
    uses = find_uses(graph.model, {weight.name for weight in large})
    kept: dict[object, list[Weight]] = {}
    nodes: list[onnx.NodeProto] = []
    new_names: dict[str, str] = {}
    # Tables come first: rows that are read one by one must not be behind a computed transpose.
    for weight in sorted(large, key=lambda each: all(use.op != "Gather" for use in uses[each.name])):
        takes = all(not use.domain and (use.op, use.index) in _TAKES_COMPUTED for use in uses[weight.name])
        for op, source in _sources(weight, kept) if takes else ():
            new_names[weight.name] = source.name
            nodes += _derive(graph.model, names, op, source, weight)
            break
        else:
            kept.setdefault(_key(weight, weight.data), []).append(weight)
    if not nodes:
        return
    for old in new_names:
        del graph.weights[old]
    keep_initializers(graph.model.graph, {tensor.name for tensor in graph.model.graph.initializer} - set(new_names))
    replace(graph.model.graph.node, [*nodes, *graph.model.graph.node])


def _sources(weight: Weight, kept: dict[object, list[Weight]]) -> Iterator[tuple[str, Weight]]:
    for source in kept.get(_key(weight, weight.data), ()):
        if _same(source.data.reshape(-1), weight.data.reshape(-1)):
            yield "Reshape", source
    if len(weight.shape) == 2:
        for source in kept.get(_key(weight, weight.data.T), ()):
            if source.shape == weight.shape[::-1] and _same(source.data, weight.data.T):
                yield "Transpose", source


def _derive(model: onnx.ModelProto, names: Names, op: str, source: Weight, weight: Weight) -> Iterator[onnx.NodeProto]:
    """The node that gives `weight`'s value under its old name, so that its readers need no change."""
    if op == "Transpose":
        yield onnx.helper.make_node("Transpose", [source.name], [weight.name], perm=[1, 0])
        return
    shape = names.fresh("shape")
    model.graph.initializer.append(
        onnx.TensorProto(
            name=shape,
            data_type=onnx.TensorProto.INT64,
            dims=[len(weight.shape)],
            raw_data=np.array(weight.shape, "<i8").tobytes(),
        )
    )
    yield onnx.helper.make_node("Reshape", [source.name, shape], [weight.name])


def _alias(graph: Graph, new_names: dict[str, str]) -> None:
    if not new_names:
        return
    rename_uses(graph.model.graph, new_names)
    for old in new_names:
        graph.weights.pop(old, None)
    keep_initializers(graph.model.graph, {tensor.name for tensor in graph.model.graph.initializer} - set(new_names))


def _names_that_stay(model: onnx.ModelProto) -> set[str]:
    """Initializers that must keep their own name: a graph returns them, or a nested graph reuses the name."""
    names = Names(model.graph)
    stay = {name for name, places in names.defined.items() if places > 1}
    for graph in all_graphs(model.graph):
        stay.update(value.name for value in graph.output)
    return stay


def _key(weight: Weight, data: np.ndarray) -> tuple[int, int, bytes]:
    return weight.dtype.code, weight.count, _sample(data)


def _sample(data: np.ndarray) -> bytes:
    """Some 64 elements in the order of iteration, to tell most tensors apart without reading them."""
    places = np.linspace(0, data.size - 1, 64).astype(np.int64)
    return data[np.unravel_index(places, data.shape)].tobytes()


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the bits are the same: NaN equals itself and -0.0 differs from 0.0."""
    bits = np.dtype(f"u{first.dtype.itemsize}")
    return first.shape == second.shape and np.array_equal(first.view(bits), _bits_of(second, bits))


def _bits_of(data: np.ndarray, bits: np.dtype) -> np.ndarray:
    # A transposed array can't be viewed as another type along its strided axis in every NumPy.
    return data.T.view(bits).T if not data.flags.c_contiguous and data.ndim == 2 else data.view(bits)
