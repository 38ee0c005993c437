"""Take weights out of an ONNX model: from initializers, Constant nodes, nested graphs and sparse tensors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx

from seed_exporter.graph.edit import Names, rename_uses, replace
from seed_exporter.graph.model import Weight, all_graphs, stays_inline
from seed_exporter.loaders.tensors import inline, read_tensor, stub
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import DType

SPARSE_MAX = 1 << 30  # [B] a sparse initializer may grow to when it is made dense


class Collector:
    """Keeps weights aside; its methods return the initializers that stand for them in the main graph."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.weights: dict[str, Weight] = {}

    def take_initializers(self, graph: onnx.GraphProto) -> list[onnx.TensorProto]:
        return [self.settle(tensor, tensor.name) for tensor in graph.initializer]

    def settle(self, tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
        """The initializer for `tensor`: without data if it is a weight, which is then kept aside."""
        read = read_tensor(tensor, self.path)
        if read is None:
            left = onnx.TensorProto()
            left.CopyFrom(tensor)
            left.name = name
            return left
        return self.keep(name, *read, tuple(tensor.dims))

    def keep(self, name: str, dtype: DType, data: np.ndarray, shape: tuple[int, ...]) -> onnx.TensorProto:
        if stays_inline(dtype, data.nbytes):
            return inline(name, dtype, data, shape)
        if name in self.weights:
            raise UnsupportedError(f"two initializers are named {name!r}; export the model again")
        self.weights[name] = Weight(name, dtype, shape, data)
        return stub(name, dtype, shape)

    def take_sparse(self, graph: onnx.GraphProto) -> list[onnx.TensorProto]:
        """Sparse initializers made dense, as ONNX Runtime does on opening; the coder finds the zeros."""
        taken = [
            self.keep(tensor.values.name, *self.dense(tensor), tuple(tensor.dims))
            for tensor in graph.sparse_initializer
        ]
        del graph.sparse_initializer[:]
        return taken

    def constant(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """The value of a Constant node, None if the node is something else."""
        sparse = [each.sparse_tensor for each in node.attribute if each.name == "sparse_value"]
        if node.op_type == "Constant" and sparse:
            return inline("", *self.dense(sparse[0]), tuple(sparse[0].dims))
        return _constant(node)

    def dense(self, tensor: onnx.SparseTensorProto) -> tuple[DType, np.ndarray]:
        name, shape = tensor.values.name, tuple(tensor.dims)
        dtype, values = _expect(read_tensor(tensor.values, self.path), name)
        _, indices = _expect(read_tensor(tensor.indices, self.path), name)
        count = math.prod(shape)
        if dtype.bits < 8 or not 0 <= dtype.size(count) <= SPARSE_MAX:
            raise UnsupportedError(f"sparse tensor {name!r} is too large to be made dense")
        out = np.zeros(count, dtype.storage)
        try:
            out[np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices] = values
        except (ValueError, IndexError):
            raise UnsupportedError(f"sparse tensor {name!r} has places outside its dimensions") from None
        return dtype, out.reshape(shape)

    def take_constants(self, graph: onnx.GraphProto, names: Names) -> list[onnx.TensorProto]:
        """The main graph's Constant nodes as initializers: some exporters keep weights there."""
        taken = []
        nodes = []
        returned = {value.name for value in graph.output}
        for node in graph.node:
            tensor = self.constant(node)
            if tensor is None or names.defined[node.output[0]] > 1:
                nodes.append(node)
                continue
            name = node.output[0]
            if name in returned:
                # A graph returns what its nodes compute; not every reader takes an initializer there.
                name = names.fresh(f"{name}_value")
                nodes.append(onnx.helper.make_node("Identity", [name], [node.output[0]]))
            taken.append(self.settle(tensor, name))
        replace(graph.node, nodes)
        return taken

    def hoist(self, graph: onnx.GraphProto, names: Names) -> list[onnx.TensorProto]:
        """Weights of a nested graph (not its small constants), under names that are free everywhere."""
        taken = []
        new_names: dict[str, str] = {}
        inputs = {value.name for value in graph.input}
        returned = {value.name for value in graph.output}
        nodes: list[onnx.NodeProto] = []
        initializers: list[onnx.TensorProto] = []

        def move(old: str, shape: tuple[int, ...], read: tuple[DType, np.ndarray] | None) -> bool:
            if read is None or stays_inline(read[0], read[1].nbytes) or old in inputs:
                return False
            free = names.defined[old] == 1 and old not in returned
            new = old if free else names.fresh(f"{old}_value")
            taken.append(self.keep(new, *read, shape))
            if old in returned:
                nodes.append(onnx.helper.make_node("Identity", [new], [old]))
            elif new != old:
                new_names[old] = new
            return True

        for tensor in graph.initializer:
            read = read_tensor(tensor, self.path)
            if not move(tensor.name, tuple(tensor.dims), read):
                initializers.append(self.inside(tensor, read))
        for sparse in graph.sparse_initializer:
            name, shape = sparse.values.name, tuple(sparse.dims)
            dtype, data = self.dense(sparse)
            if not move(name, shape, (dtype, data)):
                initializers.append(inline(name, dtype, data, shape))
        del graph.sparse_initializer[:]
        for node in graph.node:
            tensor = self.constant(node)
            if tensor is None or not move(node.output[0], tuple(tensor.dims), read_tensor(tensor, self.path)):
                nodes.append(node)
        replace(graph.initializer, initializers)
        replace(graph.node, nodes)
        rename_uses(graph, new_names)
        return taken

    def inside(self, tensor: onnx.TensorProto, read: tuple[DType, np.ndarray] | None) -> onnx.TensorProto:
        """A tensor that stays where it is, with its data in the model."""
        if read is None:
            return tensor
        return inline(tensor.name, *read, tuple(tensor.dims))

    def bring_in_attributes(self, graph: onnx.GraphProto) -> None:
        """Read external data of attributes: only initializers can refer to the weights file."""
        for inner in all_graphs(graph):
            for node in inner.node:
                for attribute in node.attribute:
                    for tensor in [attribute.t, *attribute.tensors]:
                        if tensor.data_location == onnx.TensorProto.EXTERNAL:
                            tensor.CopyFrom(self.inside(tensor, read_tensor(tensor, self.path)))


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node, None if it is something else or no tensor of numbers."""
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


def _expect(read: tuple[DType, np.ndarray] | None, name: str) -> tuple[DType, np.ndarray]:
    if read is None:
        raise UnsupportedError(f"sparse tensor {name!r} holds no numbers; make it dense before exporting")
    return read
