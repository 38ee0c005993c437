"""Resizing: along each axis a matrix, which ONNX Runtime gives, whatever the mode."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor

from seed_exporter.heal.registry import Call, operator
from seed_runtime import backends

_KEPT: Final = (
    "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode"
)  # fmt: skip
"""Attributes that say how one axis is resized."""


@operator("Resize", "Upsample")
def _resize(call: Call) -> Tensor:
    if call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        call.refuse("a crop")
    if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        call.refuse("sizes that follow from an aspect ratio")
    x, old = call.x, call.opset < 11
    scales, sizes = call.numbers(1 if old else 2), None if old else call.integers(3)
    factors = scales or call.attribute("scales")
    axes = call.attribute("axes") or range(x.dim())
    kept = tuple((name, call.attributes[name]) for name in _KEPT if name in call.attributes)
    if old:
        # Before opset 11 the first element of both was the same, and elements between were rounded down.
        kept += (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor"))
    for place, axis in enumerate(axes):
        if factors is None and sizes is None:
            call.refuse("neither scales nor sizes")
        wanted = x.shape[axis] if sizes is None else sizes[place]
        factor = 0.0 if factors is None else float(factors[place])
        if (factors is None and wanted != x.shape[axis]) or (factors is not None and factor != 1):
            x = _along(x, axis, _matrix(x.shape[axis], wanted, factor, kept))
    return x


def _along(x: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    if ((matrix == 0) | (matrix == 1)).all():
        return x.index_select(axis, torch.from_numpy(matrix.argmax(1)).to(x.device))
    moved = x.movedim(axis, -1) @ torch.from_numpy(matrix.T.copy()).to(x.device, x.dtype)
    return moved.movedim(-1, axis)


@lru_cache(maxsize=256)
def _matrix(before: int, size: int, scale: float, attributes: tuple[tuple[str, Any], ...]) -> np.ndarray:
    """Return the matrix (size after, size before) of an axis: unit vectors, resized.

    Args:
        before: size before.
        size: size after, where no scale is given.
        scale: factor of the size; 0 to take `size`.
        attributes: how it is resized.
    """
    backends.get().load()  # without its telemetry
    import onnxruntime as ort

    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, before, before])
    given, name = (
        (helper.make_tensor("given", TensorProto.FLOAT, [4], [1, 1, 1, scale]), "scales")
        if scale
        else (helper.make_tensor("given", TensorProto.INT64, [4], [1, 1, before, size]), "sizes")
    )
    inputs = ["x", "", "given"] if name == "scales" else ["x", "", "", "given"]
    node = helper.make_node("Resize", inputs, ["y"], **dict(attributes))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "resize", [image], [y], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": np.eye(before, dtype=np.float32)[None, None]})[0]
    return found[0, 0].T
