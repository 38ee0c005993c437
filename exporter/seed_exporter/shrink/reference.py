"""Run single operators on constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def computed(node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], opset: int) -> np.ndarray | None:
    """Return the first output of a node for constant inputs; None where onnx's reference can't compute it.

    Args:
        node: the node, of ONNX's own domain.
        inputs: all of its inputs that aren't left out, by name.
        opset: version of ONNX's own operators.
    """
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(name, _code(each), None) for name, each in inputs.items()],
        [onnx.helper.make_tensor_value_info(node.output[0], _code(next(iter(inputs.values()))), None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    with np.errstate(all="ignore"):
        try:
            (found, *_) = ReferenceEvaluator(model).run([node.output[0]], dict(inputs))
        except Exception:  # the reference lacks some operators and types
            return None
    return np.asarray(found)


def _code(array: np.ndarray) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
