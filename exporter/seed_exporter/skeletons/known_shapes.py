"""Find the shapes that a model must state, because inference can't find them.

ONNX Runtime fuses nodes only where it knows their shapes. MiniLM-L6 without any of its 333 stated shapes
loses 12 SkipLayerNormalization fusions, and its outputs move by 2.5e-6; one in ten of them restores both.
"""

from __future__ import annotations

from typing import Final

import onnx

from seed_exporter.graph.index import GraphIndex, all_graphs
from seed_exporter.graph.messages import copy_of

_ROUNDS_MAX: Final = 100
"""Rounds of inference after which all stated shapes are kept."""

Shapes = dict[str, onnx.TypeProto]
"""Types of values by name."""


def needed_shapes(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Choose from the main graph's `value_info` what doesn't follow from the others, without those of no value.

    Nested graphs are left out: ONNX Runtime infers them on its own, with what it knows outside.

    Returns:
        New messages with name and type, in the model's order.
    """
    graph = model.graph
    made = GraphIndex(graph).producers
    stated: Shapes = {value.name: value.type for value in graph.value_info if value.name in made}
    # What constrains a dimension besides a number is a name that something else has as well.
    shared = _shared_names(model)
    probe = _without_weights(model)
    kept: Shapes = {}
    for _ in range(_ROUNDS_MAX):
        inferred = _infer(probe, kept)
        # Nodes stand in order: the first that inference fails at may explain all that follow it,
        # so only those whose own inputs are known are stated in this round.
        unknown = {
            name for name, type_ in stated.items() if name not in kept and _says_more(type_, inferred.get(name), shared)
        }
        if not unknown:
            break
        for node in graph.node:
            if unknown.isdisjoint(node.input):
                kept |= {name: stated[name] for name in node.output if name in unknown}
    else:
        kept = stated
    return [
        onnx.ValueInfoProto(name=value.name, type=kept[value.name]) for value in graph.value_info if value.name in kept
    ]


def _infer(probe: onnx.ModelProto, stated: Shapes) -> Shapes:
    """Infer types where only `stated` is known. Values infer nothing: ONNX Runtime does little of that."""
    model = onnx.ModelProto()
    model.CopyFrom(probe)
    for name, type_ in stated.items():
        model.graph.value_info.add(name=name, type=type_)
    try:
        result = onnx.shape_inference.infer_shapes(model, data_prop=False)
    except Exception:  # an operator's inference function threw: every stated shape may matter
        return dict(stated)
    return {value.name: value.type for value in result.graph.value_info}


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its weights as inputs, and no stated shapes: inference then reads no weight's data."""
    external = onnx.TensorProto.EXTERNAL
    weights = [tensor for tensor in model.graph.initializer if tensor.data_location == external]
    small = [tensor for tensor in model.graph.initializer if tensor.data_location != external]
    inputs = [onnx.helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in weights]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = copy_of(model.graph, value_info=(), initializer=small, input=[*model.graph.input, *inputs])
    probe.graph.CopyFrom(graph)
    return probe


def _shared_names(model: onnx.ModelProto) -> set[str]:
    """Return the names of dimensions that stand in more than one tensor's shape."""
    seen: set[str] = set()
    shared: set[str] = set()
    for graph in all_graphs(model.graph):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            own = {dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param}
            shared |= own & seen
            seen |= own
    return shared


def _says_more(stated: onnx.TypeProto, inferred: onnx.TypeProto | None, shared: set[str]) -> bool:
    """Return whether the stated type says something that the inferred one doesn't."""
    if inferred is None:
        return True
    if not stated.HasField("tensor_type"):
        return stated != inferred
    if not stated.tensor_type.HasField("shape"):
        return False
    if not inferred.tensor_type.HasField("shape"):
        return True
    pairs = zip(stated.tensor_type.shape.dim, inferred.tensor_type.shape.dim, strict=False)
    return any(
        not theirs.HasField("dim_value")
        and (ours.HasField("dim_value") or (ours.dim_param in shared and ours.dim_param != theirs.dim_param))
        for ours, theirs in pairs
    )
