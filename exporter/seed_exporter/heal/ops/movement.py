"""Movement of elements: shapes, axes, parts, padding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from seed_exporter.heal.registry import Call, operator
from seed_exporter.heal.windows import padded


@operator("Reshape")
def _reshape(call: Call) -> Tensor:
    shape = call.integers(1)
    if shape is None:
        shape = list(call.attribute("shape"))
    if not call.attribute("allowzero", 0):
        shape = [size or call.x.shape[axis] for axis, size in enumerate(shape)]
    return call.x.reshape(shape)


@operator("Flatten")
def _flatten(call: Call) -> Tensor:
    axis = call.attribute("axis", 1)
    axis += call.x.dim() if axis < 0 else 0
    return call.x.reshape(int(np.prod(call.x.shape[:axis])), -1)


@operator("Squeeze")
def _squeeze(call: Call) -> Tensor:
    axes = _axes(call)
    return call.x.squeeze() if axes is None else call.x.squeeze(tuple(axes))


@operator("Unsqueeze")
def _unsqueeze(call: Call) -> Tensor:
    axes, x = _axes(call) or [], call.x
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _axes(call: Call) -> list[int] | None:
    """Return the axes of a node: an input since opset 13, an attribute before; None where none are given."""
    return call.integers(1) if call.input(1) is not None else call.attribute("axes")


@operator("Transpose")
def _transpose(call: Call) -> Tensor:
    return call.x.permute(call.attribute("perm", list(reversed(range(call.x.dim())))))


@operator("Concat")
def _concat(call: Call) -> Tensor:
    return torch.cat(call.given(), call.attribute("axis"))


@operator("Split")
def _split(call: Call) -> tuple[Tensor, ...]:
    axis = call.attribute("axis", 0)
    sizes = call.integers(1) or call.attribute("split")
    if sizes is None:
        count = call.attribute("num_outputs")
        if count is None:
            call.refuse("neither sizes nor a number of parts")
        sizes = -(-call.x.shape[axis] // count)
    return torch.split(call.x, sizes, axis)


@operator("Expand")
def _expand(call: Call) -> Tensor:
    shape = call.integers(1) or []
    return call.x.expand(torch.broadcast_shapes(call.x.shape, tuple(shape)))


@operator("Tile")
def _tile(call: Call) -> Tensor:
    return call.x.repeat(call.integers(1) or [])


@operator("Pad")
def _pad(call: Call) -> Tensor:
    x, mode = call.x, call.attribute("mode", "constant")
    pads = call.integers(1) or list(call.attribute("pads", ()))
    half = len(pads) // 2
    axes = call.integers(3) or range(half)
    before, after = [0] * x.dim(), [0] * x.dim()
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + half]
    if mode == "constant":
        value = call.numbers(2) or [call.attribute("value", 0.0)]
        return padded(x, before, after, value[0])
    for axis, size in enumerate(x.shape):
        if before[axis] or after[axis]:
            places = np.pad(np.arange(size), (max(before[axis], 0), max(after[axis], 0)), mode=mode)
            places = places[max(-before[axis], 0) : len(places) - max(-after[axis], 0)]
            x = x.index_select(axis, torch.from_numpy(places).to(x.device))
    return x


@operator("DepthToSpace")
def _depth_to_space(call: Call) -> Tensor:
    n, c, h, w = call.x.shape
    b = call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(call.x, b)
    parts = call.x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def _space_to_depth(call: Call) -> Tensor:
    n, c, h, w = call.x.shape
    b = call.attribute("blocksize")
    return call.x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)
