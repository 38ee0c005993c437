"""Integers that stand for floats."""

from __future__ import annotations

import torch
from torch import Tensor

from seed_exporter.heal.ops.normalizations import along
from seed_exporter.heal.registry import MICROSOFT, Call, operator


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


@operator("MatMulNBits", domain=MICROSOFT)
def _matmul_nbits(call: Call) -> Tensor:
    bits, rows = call.attribute("bits", 4), call.attribute("K")
    if bits not in (4, 8) or call.input(4) is not None:
        call.refuse(f"{bits} bits, or an order of groups")
    packed, scales = call.required(1), call.required(2)
    columns, blocks = packed.shape[:2]
    integers = _unpacked(packed, bits)
    zeros = call.input(3)
    if zeros is None:
        zero = torch.full((columns, blocks), 2.0 ** (bits - 1), dtype=scales.dtype, device=scales.device)
    elif zeros.is_floating_point():
        zero = zeros.reshape(columns, blocks)
    else:
        zero = _unpacked(zeros.reshape(columns, -1), bits)[:, :blocks].to(scales.dtype)
    weights = (integers.to(scales.dtype) - zero[..., None]) * scales.reshape(columns, blocks, 1)
    found = call.x @ weights.reshape(columns, -1)[:, :rows].T
    bias = call.input(5)
    return found if bias is None else found + bias


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """Return the integers in bytes, two in each if they have 4 bits, the first in the low half."""
    return packed if bits == 8 else torch.stack([packed & 15, packed >> 4], -1).flatten(-2)
