"""Integers that stand for floats."""

from __future__ import annotations

import torch
from torch import Tensor

from seed_exporter.heal.ops.normalizations import along
from seed_exporter.heal.registry import Call, operator


@operator("DequantizeLinear")
def _dequantize(call: Call) -> Tensor:
    scale = call.required(1)
    zero = call.input(2)
    zero = torch.zeros_like(scale) if zero is None else zero.to(scale.dtype)
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    if block:
        scale, zero = (each.repeat_interleave(block, axis) for each in (scale, zero))
    elif scale.dim() == 1 and scale.numel() > 1:
        scale, zero = along(scale, call.x, axis), along(zero, call.x, axis)
    return (call.x.to(scale.dtype) - zero) * scale
