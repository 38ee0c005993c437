"""Bring a graph to the opset that rules write in, with the types of all its values."""

from __future__ import annotations

from typing import Final

import onnx

from seed_exporter.graph.inference import weights_as_inputs, with_types
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of
from seed_runtime.errors import UnsupportedError

OPSET: Final = 18
"""Oldest opset that rules are written for: all reductions take their axes as an input, scattering can add."""
_IR: Final = 8
"""IR version of this opset."""
_SOFTMAX: Final = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_SOFTMAX_OPSET: Final = 13
"""Opset from which these look at one axis. The converter leaves them as they are where it knows no shapes."""


def typed_model(graph: Graph) -> onnx.ModelProto:
    """Return a graph's model at OPSET or above, with the types that its values are known to have.

    Raises:
        UnsupportedError: onnx can't convert the model.
    """
    held = [tensor for tensor in graph.model.graph.initializer if tensor.name in graph.weights]
    probe = with_types(weights_as_inputs(graph))
    if opset_of(probe) < OPSET:
        probe = with_types(_converted(probe))
    result = onnx.ModelProto()
    result.CopyFrom(probe)
    originals = list(graph.model.graph.input)
    result.graph.CopyFrom(copy_of(probe.graph, input=originals, initializer=[*probe.graph.initializer, *held]))
    result.ir_version = max(result.ir_version, _IR)
    return result


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    old = opset_of(model)
    advice = f"convert it to opset {OPSET} or newer (onnx.version_converter), or export it to that opset"
    known = {value.name for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]}
    known |= {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if old < _SOFTMAX_OPSET and node.op_type in _SOFTMAX and node.input[0] not in known:
            raise UnsupportedError(f"the model has opset {old}, and a {node.op_type} of an unknown shape; {advice}")
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # whatever the C++ side threw
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedError(f"onnx can't convert the model from opset {old}: {line}; {advice}") from error
