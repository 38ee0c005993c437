"""Activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from seed_exporter.heal.registry import Call, operator, unary

unary("HardSwish", functional.hardswish)
unary("Mish", functional.mish)
unary("Relu", torch.relu)
unary("Sigmoid", torch.sigmoid)
unary("Tanh", torch.tanh)

_SOFTMAX_OF_ONE_AXIS = 13
"""Opset from which softmax looks at one axis; before, at all from `axis` on."""


@operator("Softmax")
def _softmax(call: Call) -> Tensor:
    if call.opset >= _SOFTMAX_OF_ONE_AXIS:
        return torch.softmax(call.x, call.attribute("axis", -1))
    return torch.softmax(_rows(call), -1).reshape(call.x.shape)


@operator("LogSoftmax")
def _log_softmax(call: Call) -> Tensor:
    if call.opset >= _SOFTMAX_OF_ONE_AXIS:
        return torch.log_softmax(call.x, call.attribute("axis", -1))
    return torch.log_softmax(_rows(call), -1).reshape(call.x.shape)


def _rows(call: Call) -> Tensor:
    axis = call.attribute("axis", 1) % call.x.dim()
    return call.x.reshape(*call.x.shape[:axis], -1)


@operator("Clip")
def _clip(call: Call) -> Tensor:
    if call.opset < 11:
        return call.x.clamp(call.attribute("min"), call.attribute("max"))
    low, high = call.input(1), call.input(2)
    return call.x if low is None and high is None else torch.clamp(call.x, low, high)


@operator("HardSigmoid")
def _hard_sigmoid(call: Call) -> Tensor:
    return (call.attribute("alpha", 0.2) * call.x + call.attribute("beta", 0.5)).clamp(0, 1)


@operator("LeakyRelu")
def _leaky_relu(call: Call) -> Tensor:
    return functional.leaky_relu(call.x, call.attribute("alpha", 0.01))


@operator("PRelu")
def _prelu(call: Call) -> Tensor:
    return torch.where(call.x < 0, call.required(1) * call.x, call.x)


@operator("Elu")
def _elu(call: Call) -> Tensor:
    return functional.elu(call.x, call.attribute("alpha", 1.0))


@operator("Celu")
def _celu(call: Call) -> Tensor:
    return functional.celu(call.x, call.attribute("alpha", 1.0))


@operator("Selu")
def _selu(call: Call) -> Tensor:
    alpha, gamma = call.attribute("alpha", 1.67326319217681884765625), call.attribute("gamma", 1.05070102214813232)
    return gamma * functional.elu(call.x, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(call: Call) -> Tensor:
    return torch.where(call.x > call.attribute("alpha", 1.0), call.x, 0.0)


@operator("Shrink")
def _shrink(call: Call) -> Tensor:
    edge, bias = call.attribute("lambd", 0.5), call.attribute("bias", 0.0)
    return torch.where(call.x < -edge, call.x + bias, torch.where(call.x > edge, call.x - bias, 0.0))


@operator("Gelu")
def _gelu(call: Call) -> Tensor:
    return functional.gelu(call.x, approximate=call.attribute("approximate", "none"))


@operator("Swish")
def _swish(call: Call) -> Tensor:
    return call.x * torch.sigmoid(call.attribute("alpha", 1.0) * call.x)


@operator("Dropout")
def _dropout(call: Call) -> Tensor:
    return call.x
