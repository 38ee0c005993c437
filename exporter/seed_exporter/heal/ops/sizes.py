"""Sizes of values, and tensors made of sizes and constants."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seed_exporter.heal.registry import Call, operator


@operator("Shape")
def _shape(call: Call) -> Tensor:
    sizes = call.x.shape[call.attribute("start", 0) : call.attribute("end")]
    return torch.tensor(sizes, dtype=torch.int64, device=call.x.device)


@operator("Size")
def _size(call: Call) -> Tensor:
    return torch.tensor(call.x.numel(), dtype=torch.int64, device=call.x.device)


@operator("Constant")
def _constant(call: Call) -> Tensor:
    for name, dtype in (("value_float", call.float_type), ("value_floats", call.float_type)):
        if name in call.attributes:
            return torch.tensor(call.attribute(name), dtype=dtype)
    for name in ("value_int", "value_ints"):
        if name in call.attributes:
            return torch.tensor(call.attribute(name), dtype=torch.int64)
    if "value" not in call.attributes:
        call.refuse("strings or a sparse tensor")
    value: Tensor = call.attribute("value")
    return value


@operator("ConstantOfShape")
def _constant_of_shape(call: Call) -> Tensor:
    shape, value = call.integers(0) or [], call.attribute("value")
    if value is None:
        return torch.zeros(shape, dtype=call.float_type, device=call.x.device)
    return value.reshape(()).expand(shape)


@operator("EyeLike")
def _eye_like(call: Call) -> Tensor:
    rows, cols = call.x.shape
    if "dtype" in call.attributes:
        call.refuse("a type of its own")
    ones = torch.ones(rows, cols, dtype=call.x.dtype, device=call.x.device)
    below = call.attribute("k", 0)
    return torch.tril(torch.triu(ones, below), below)


@operator("Range")
def _range(call: Call) -> Tensor:
    start, limit, step = ((call.numbers(index) or [0])[0] for index in (0, 1, 2))
    count = max(0, math.ceil((limit - start) / step))
    return call.x + call.required(2) * torch.arange(count, dtype=call.x.dtype, device=call.x.device)
