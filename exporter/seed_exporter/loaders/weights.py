"""Take weights out of an ONNX model: from initializers, Constant nodes, nested graphs and sparse tensors.

The model is changed in place, which is why it must be the loader's own: a copy would hold the weights twice.
Everything after this works on graphs without weights, and leaves its arguments as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Set
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from seed_exporter.graph.edit import FreshNames, rename_uses
from seed_exporter.graph.index import GraphIndex, all_graphs
from seed_exporter.graph.messages import replace_elements
from seed_exporter.graph.model import Weight, stays_inline
from seed_exporter.loaders.tensors import inline_tensor, read_tensor, tensor_without_data
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import DType

SPARSE_MAX: Final = 1 << 30
"""Largest size that a sparse initializer may have when it is made dense [B]."""


class WeightCollector:
    """Collects the weights of one model; its methods return the initializers that stand for them in the main graph.

    Args:
        path: the model's file, beside which its external data is; None for a model in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.weights: dict[str, Weight] = {}
        """Weights by name, in the order in which they were found."""

    def take_initializers(self, graph: onnx.GraphProto, defaults: Set[str]) -> list[onnx.TensorProto]:
        """Collect the weights among the main graph's initializers; those that are `defaults` of inputs stay inside."""
        return [
            _with_own_data(tensor, read_tensor(tensor, self._path))
            if tensor.name in defaults
            else self._take_tensor(tensor, tensor.name)
            for tensor in graph.initializer
        ]

    def take_from_nodes(self, graph: onnx.GraphProto) -> list[onnx.TensorProto]:
        """Collect the weights of sparse initializers, Constant nodes and nested graphs, whose nodes lose them.

        External data of other attributes is read into the model: only initializers can refer to the weights file.
        """
        definitions = GraphIndex(graph).definitions
        names = FreshNames(graph)
        taken = self._take_sparse(graph) + self._take_constants(graph, definitions, names)
        # Innermost first: what an outer graph's nodes are replaced by are copies, inner graphs included.
        for inner in reversed(list(all_graphs(graph))[1:]):
            taken += self._take_nested(inner, definitions, names)
        self._read_external_attributes(graph)
        return taken

    def _take_tensor(self, tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
        """Return the initializer for `tensor`: without data if it is a weight, which is then collected."""
        read = read_tensor(tensor, self._path)
        if read is None:
            unchanged = onnx.TensorProto()
            unchanged.CopyFrom(tensor)
            unchanged.name = name
            return unchanged
        return self._take(name, *read, tuple(tensor.dims))

    def _take(self, name: str, dtype: DType, data: np.ndarray, shape: tuple[int, ...]) -> onnx.TensorProto:
        if stays_inline(dtype, data.nbytes):
            return inline_tensor(name, dtype, data, shape)
        if name in self.weights:
            raise UnsupportedError(f"two initializers are named {name!r}; export the model again")
        self.weights[name] = Weight(name, dtype, shape, data)
        return tensor_without_data(name, dtype, shape)

    def _take_sparse(self, graph: onnx.GraphProto) -> list[onnx.TensorProto]:
        """Make sparse initializers dense, as ONNX Runtime does on opening; the coder finds the zeros."""
        taken = [
            self._take(tensor.values.name, *self._dense(tensor), tuple(tensor.dims))
            for tensor in graph.sparse_initializer
        ]
        del graph.sparse_initializer[:]
        return taken

    def _take_constants(
        self, graph: onnx.GraphProto, definitions: Counter[str], names: FreshNames
    ) -> list[onnx.TensorProto]:
        """Make the main graph's Constant nodes initializers: some exporters keep weights there."""
        taken = []
        nodes = []
        returned = {value.name for value in graph.output}
        for node in graph.node:
            tensor = self._constant(node)
            if tensor is None or definitions[node.output[0]] > 1:
                nodes.append(node)
                continue
            name = node.output[0]
            if name in returned:
                # A graph returns what its nodes compute; not every reader takes an initializer there.
                name = names.take(f"{name}_value")
                nodes.append(onnx.helper.make_node("Identity", [name], [node.output[0]]))
            taken.append(self._take_tensor(tensor, name))
        replace_elements(graph.node, nodes)
        return taken

    def _take_nested(
        self, graph: onnx.GraphProto, definitions: Counter[str], names: FreshNames
    ) -> list[onnx.TensorProto]:
        """Collect the weights of a nested graph (not its small constants), under names that are free everywhere."""
        taken = []
        new_names: dict[str, str] = {}
        inputs = {value.name for value in graph.input}
        returned = {value.name for value in graph.output}
        nodes: list[onnx.NodeProto] = []
        initializers: list[onnx.TensorProto] = []

        def move(old: str, shape: tuple[int, ...], read: tuple[DType, np.ndarray] | None) -> bool:
            if read is None or stays_inline(read[0], read[1].nbytes) or old in inputs:
                return False
            free = definitions[old] == 1 and old not in returned
            new = old if free else names.take(f"{old}_value")
            taken.append(self._take(new, *read, shape))
            if old in returned:
                nodes.append(onnx.helper.make_node("Identity", [new], [old]))
            elif new != old:
                new_names[old] = new
            return True

        for tensor in graph.initializer:
            read = read_tensor(tensor, self._path)
            if not move(tensor.name, tuple(tensor.dims), read):
                initializers.append(_with_own_data(tensor, read))
        for sparse in graph.sparse_initializer:
            name, shape = sparse.values.name, tuple(sparse.dims)
            dtype, data = self._dense(sparse)
            if not move(name, shape, (dtype, data)):
                initializers.append(inline_tensor(name, dtype, data, shape))
        del graph.sparse_initializer[:]
        for node in graph.node:
            tensor = self._constant(node)
            if tensor is None or not move(node.output[0], tuple(tensor.dims), read_tensor(tensor, self._path)):
                nodes.append(node)
        replace_elements(graph.initializer, initializers)
        replace_elements(graph.node, nodes)
        if new_names:
            graph.CopyFrom(rename_uses(graph, new_names))
        return taken

    def _read_external_attributes(self, graph: onnx.GraphProto) -> None:
        for inner in all_graphs(graph):
            for node in inner.node:
                for attribute in node.attribute:
                    for tensor in [attribute.t, *attribute.tensors]:
                        if tensor.data_location == onnx.TensorProto.EXTERNAL:
                            tensor.CopyFrom(_with_own_data(tensor, read_tensor(tensor, self._path)))

    def _constant(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """Return the value of a Constant node, None if the node is something else."""
        sparse = [each.sparse_tensor for each in node.attribute if each.name == "sparse_value"]
        if node.op_type == "Constant" and sparse:
            return inline_tensor("", *self._dense(sparse[0]), tuple(sparse[0].dims))
        return _dense_constant(node)

    def _dense(self, tensor: onnx.SparseTensorProto) -> tuple[DType, np.ndarray]:
        """Return the element type of a sparse tensor and its elements, zeros included.

        Raises:
            UnsupportedError: it holds no numbers, is damaged, or takes more than SPARSE_MAX.
        """
        name, shape = tensor.values.name, tuple(tensor.dims)
        dtype, values = _numbers(read_tensor(tensor.values, self._path), name)
        _, indices = _numbers(read_tensor(tensor.indices, self._path), name)
        count = math.prod(shape)
        if dtype.bits < 8 or not 0 <= dtype.size(count) <= SPARSE_MAX:
            raise UnsupportedError(f"sparse tensor {name!r} is too large to be made dense; store it as a dense tensor")
        out = np.zeros(count, dtype.storage)
        try:
            out[np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices] = values
        except (ValueError, IndexError):
            raise UnsupportedError(
                f"sparse tensor {name!r} has indices outside its dimensions; export the model again"
            ) from None
        return dtype, out.reshape(shape)


def _with_own_data(tensor: onnx.TensorProto, read: tuple[DType, np.ndarray] | None) -> onnx.TensorProto:
    """Return a tensor that stays where it is, with its data in the model."""
    if read is None:
        return tensor
    return inline_tensor(tensor.name, *read, tuple(tensor.dims))


def _dense_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the value of a Constant node, None if it is something else or no dense tensor of numbers."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value" and attribute.type == onnx.AttributeProto.TENSOR:
        return attribute.t
    kinds = {
        "value_float": (onnx.TensorProto.FLOAT, []),
        "value_floats": (onnx.TensorProto.FLOAT, [len(attribute.floats)]),
        "value_int": (onnx.TensorProto.INT64, []),
        "value_ints": (onnx.TensorProto.INT64, [len(attribute.ints)]),
    }
    if attribute.name not in kinds:
        return None
    code, shape = kinds[attribute.name]
    value = np.array(onnx.helper.get_attribute_value(attribute), "<f4" if code == onnx.TensorProto.FLOAT else "<i8")
    return onnx.TensorProto(data_type=code, dims=shape, raw_data=value.tobytes())


def _numbers(read: tuple[DType, np.ndarray] | None, name: str) -> tuple[DType, np.ndarray]:
    if read is None:
        raise UnsupportedError(f"sparse tensor {name!r} holds no numbers; make it dense before exporting")
    return read
