"""Which shapes a model must state, because inference can't find them.

ONNX Runtime fuses nodes only where it knows their shapes. MiniLM-L6 without any of its 333 stated shapes
loses 12 SkipLayerNormalization fusions, and its outputs move by 2.5e-6; one in ten of them restores both.
"""

from __future__ import annotations

import onnx

from seed_exporter.graph.edit import replace
from seed_exporter.graph.model import all_graphs

_ROUNDS_MAX = 100

Shapes = dict[str, onnx.TypeProto]


def keep_needed(model: onnx.ModelProto) -> None:
    """Drop each `value_info` of the main graph that follows from the others, and those of no value.

    Nested graphs keep theirs: ONNX Runtime infers them on its own, with what it knows outside.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output if name}
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
            name for name, type_ in stated.items() if name not in kept and _adds(type_, inferred.get(name), shared)
        }
        if not unknown:
            break
        for node in graph.node:
            if unknown.isdisjoint(node.input):
                kept |= {name: stated[name] for name in node.output if name in unknown}
    else:
        kept = stated
    order = [value.name for value in graph.value_info if value.name in kept]
    del graph.value_info[:]
    for name in order:
        graph.value_info.add(name=name, type=kept[name])


def _infer(probe: onnx.ModelProto, stated: Shapes) -> Shapes:
    """What is known if only `stated` is. Values infer nothing: ONNX Runtime does little of that."""
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
    """The model with its weights as inputs, and no stated shapes: inference then reads no weight's data."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.value_info[:]
    small = []
    for tensor in probe.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            probe.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        else:
            small.append(tensor)
    replace(probe.graph.initializer, small)
    return probe


def _shared_names(model: onnx.ModelProto) -> set[str]:
    """Names of dimensions that stand in more than one tensor's shape."""
    seen: set[str] = set()
    shared: set[str] = set()
    for graph in all_graphs(model.graph):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            own = {dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param}
            shared |= own & seen
            seen |= own
    return shared


def _adds(stated: onnx.TypeProto, inferred: onnx.TypeProto | None, shared: set[str]) -> bool:
    """Whether the stated type says something that the inferred one doesn't."""
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
