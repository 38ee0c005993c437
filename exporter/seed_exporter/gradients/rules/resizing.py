"""Resizing, which is a matrix along each axis whatever the mode: the operator itself on unit vectors gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from seed_exporter.gradients.registry import Call, rule

_KEPT = ("antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode")
"""Attributes that say how one axis is resized."""


@rule("Resize")
def _resize(c: Call) -> Sequence[str | None]:
    mode = c.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize" or c.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        c.refuse("a crop, or sizes that follow from an aspect ratio")
    rank = c.rank(c.x)
    axes = [axis % rank for axis in c.attribute("axes", range(rank))]
    gradient = c.gradient
    for place, axis in enumerate(axes):
        before, after = (c.shape(name)[axis] for name in (c.x, c.y))
        scales = c.emit.static(c.input(2)) if c.input(2) else None
        stays = scales[place] == 1 if scales is not None and scales.size else before is not None and before == after
        if not stays:
            gradient = _back_along(c, gradient, axis, place, rank)
    return [gradient]


def _back_along(c: Call, gradient: str, axis: int, place: int, rank: int) -> str:
    e = c.emit
    matrix = _matrix(c, axis, place)
    if c.code != TensorProto.FLOAT:
        matrix = e("Cast", matrix, to=c.code)
    # The axis comes last, where a product with the matrix sums over what it was resized to.
    order = [each for each in range(rank) if each != axis] + [axis]
    last = e("Transpose", gradient, perm=order)
    found = e("MatMul", last, e("Transpose", matrix, perm=[1, 0]))
    return e("Transpose", found, perm=[order.index(each) for each in range(rank)])


def _matrix(c: Call, axis: int, place: int) -> str:
    """Return the matrix (size before, size after) of an axis: each row is a unit vector, resized."""
    e, before, after = c.emit, c.emit.size(c.x, axis), c.emit.size(c.y, axis)
    zero = helper.make_tensor("", TensorProto.FLOAT, [1], [0])
    unit = e("EyeLike", e("ConstantOfShape", e.vector([before, before]), value=zero))
    image = e("Unsqueeze", unit, e.integers([0, 1]))
    kept: dict[str, Any] = {name: c.attribute(name) for name in _KEPT if c.attribute(name) is not None}
    if c.input(3):
        resized = e("Resize", image, "", "", e.vector([1, 1, before, after]), **kept)
    else:
        scale = e("Gather", c.input(2), e.integers([place]))
        scales = e("Concat", e.constant(np.ones(3, np.float32)), scale, axis=0)
        resized = e("Resize", image, "", scales, **kept)
    return e("Squeeze", resized, e.integers([0, 1]))
