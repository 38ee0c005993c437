"""Arithmetic, comparisons and casts, element by element."""

from __future__ import annotations

import functools

import numpy as np
import torch
from onnx import helper
from torch import Tensor

from seed_exporter.heal.registry import Call, binary, operator, unary

for _name in (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log",
    "Neg", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan",
):  # fmt: skip
    unary(_name, getattr(torch, _name.lower()))
unary("Identity", lambda x: x)
unary("IsNaN", torch.isnan)
unary("Not", torch.logical_not)
unary("Softplus", torch.nn.functional.softplus)
unary("Softsign", torch.nn.functional.softsign)

binary("Add", torch.add)
binary("And", torch.logical_and)
binary("Equal", torch.eq)
binary("Greater", torch.gt)
binary("GreaterOrEqual", torch.ge)
binary("Less", torch.lt)
binary("LessOrEqual", torch.le)
binary("Mul", torch.mul)
binary("Or", torch.logical_or)
binary("Sub", torch.sub)
binary("Xor", torch.logical_xor)


@operator("BitShift")
def _bit_shift(call: Call) -> Tensor:
    left = call.attribute("direction") == "LEFT"
    return (torch.bitwise_left_shift if left else torch.bitwise_right_shift)(call.required(0), call.required(1))


@operator("Div")
def _div(call: Call) -> Tensor:
    x, y = call.required(0), call.required(1)
    # ONNX Runtime divides integers as C++ does: towards zero.
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@operator("Mod")
def _mod(call: Call) -> Tensor:
    x, y = call.required(0), call.required(1)
    return torch.fmod(x, y) if call.attribute("fmod", 0) else torch.remainder(x, y)


@operator("Pow")
def _pow(call: Call) -> Tensor:
    x, y = call.required(0), call.required(1)
    return torch.pow(x, y).to(x.dtype)


@operator("Max")
def _max(call: Call) -> Tensor:
    return functools.reduce(torch.maximum, call.given())


@operator("Min")
def _min(call: Call) -> Tensor:
    return functools.reduce(torch.minimum, call.given())


@operator("Sum")
def _sum(call: Call) -> Tensor:
    return functools.reduce(torch.add, call.given())


@operator("Mean")
def _mean(call: Call) -> Tensor:
    return functools.reduce(torch.add, call.given()) / len(call.given())


@operator("Where")
def _where(call: Call) -> Tensor:
    return torch.where(call.required(0), call.required(1), call.required(2))


@operator("Cast")
def _cast(call: Call) -> Tensor:
    wanted = helper.tensor_dtype_to_np_dtype(call.attribute("to"))
    if wanted.kind not in "biu":
        return call.x.to(call.float_type)
    return call.x.to(torch.from_numpy(np.zeros(0, wanted)).dtype)


@operator("CastLike")
def _cast_like(call: Call) -> Tensor:
    return call.x.to(call.required(1).dtype)
