"""Put new and smaller initializers into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from seed_exporter.graph.edit import drop_unused, with_graph
from seed_exporter.graph.index import with_uses
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph, Weight, stays_inline, storable


def with_arrays(graph: Graph, edited: onnx.GraphProto, arrays: Mapping[str, np.ndarray]) -> Graph:
    """Return the graph with an edited GraphProto, without what nothing reads there.

    Args:
        graph: the graph.
        edited: what becomes of its GraphProto.
        arrays: values of initializers that are new or changed; changed ones keep their type.
    """
    held = dict(graph.weights)
    tensors = [tensor for tensor in edited.initializer if tensor.name not in arrays]
    tensors += [_tensor(name, array, held) for name, array in arrays.items()]
    main = drop_unused(copy_of(edited, initializer=tensors))
    return with_uses(with_graph(replace(graph, weights=held), main))


def _tensor(name: str, array: np.ndarray, held: dict[str, Weight]) -> onnx.TensorProto:
    """Return an initializer, and add it to the weights where it is large enough to be one."""
    before = held.pop(name, None)
    code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype) if before is None else before.dtype.code
    dtype = storable(code)
    if dtype is None or (before is None and stays_inline(dtype, array.nbytes)):
        return numpy_helper.from_array(array, name)
    if stays_inline(dtype, array.nbytes):
        return onnx.TensorProto(name=name, data_type=code, dims=array.shape, raw_data=array.tobytes())
    held[name] = Weight(name, dtype, array.shape, array)
    return onnx.TensorProto(name=name, data_type=code, dims=array.shape)
