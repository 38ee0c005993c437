"""Infer the types of a graph's values, which has its weights apart."""

from __future__ import annotations

import onnx

from seed_exporter.graph.messages import replace_elements
from seed_exporter.graph.model import Graph


def weights_as_inputs(graph: Graph) -> onnx.ModelProto:
    """Return a copy of a graph's model with its weights as inputs: inference and conversion then need no data."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph.model)
    given = {value.name for value in graph.model.graph.input}
    probe.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in graph.model.graph.initializer
        if tensor.name in graph.weights and tensor.name not in given
    )
    small = [tensor for tensor in graph.model.graph.initializer if tensor.name not in graph.weights]
    replace_elements(probe.graph.initializer, small)
    return probe


def with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the types of its values as far as they can be inferred, those of sizes included."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # an operator's inference function threw: what is stated must do
        return model
