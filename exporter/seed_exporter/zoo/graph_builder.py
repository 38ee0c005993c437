"""Build an ONNX graph node by node, from weights by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

_OPSET: Final = 17
"""The first with LayerNormalization."""
_IR_VERSION: Final = 8
"""That of the opset, so that old versions of ONNX Runtime load the model."""


class GraphBuilder:
    """Nodes and initializers in the order of computation; methods return a value's name."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str, transposed: bool = False) -> str:
        """Add a weight by its name."""
        array = self.weights[name]
        return self.constant(name, array.T if transposed else array)

    def constant(self, name: str, value: Any) -> str:
        """Add an array under a name, once."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def model(
        self, name: str, inputs: Mapping[str, tuple[int, Sequence[Any]]], output: str, result: tuple[str, Sequence[Any]]
    ) -> onnx.ModelProto:
        """Return the model.

        Args:
            name: of the graph.
            inputs: element type and dimensions by name.
            output: value that is the only output.
            result: its name and dimensions; it is float32.
        """
        self._nodes.append(helper.make_node("Identity", [output], [result[0]], "output"))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(each, code, list(dims)) for each, (code, dims) in inputs.items()],
            [helper.make_tensor_value_info(result[0], onnx.TensorProto.FLOAT, list(result[1]))],
            list(self._initializers.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model
