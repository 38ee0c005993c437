"""Activation functions, softmax among them. Where a slope jumps, the side is the one that torch takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from seed_exporter.gradients.registry import Call, rule

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""Defaults of Selu. Source: ONNX, operator Selu."""


def select(c: Call, condition: str, gradient: str, other: str | None = None) -> str:
    """Return `gradient` where a condition holds, else `other` or 0: a product would turn infinity into NaN."""
    return c.emit("Where", condition, gradient, c.scalar(0) if other is None else other)


def gelu_slope(c: Call, x: str) -> str:
    """Return the slope of x times the normal distribution's cumulative function."""
    e = c.emit
    cumulative = e("Mul", c.scalar(0.5), e("Add", c.scalar(1), e("Erf", e("Mul", x, c.scalar(math.sqrt(0.5))))))
    density = e("Exp", e("Mul", c.scalar(-0.5), e("Mul", x, x)))
    return e("Add", cumulative, e("Mul", e("Mul", x, c.scalar(1 / math.sqrt(2 * math.pi))), density))


def tanh_gelu_slope(c: Call, x: str) -> str:
    """Return the slope of GELU's approximation by tanh."""
    e, root, cubic = c.emit, math.sqrt(2 / math.pi), 0.044715
    square = e("Mul", x, x)
    inner = e("Mul", e("Mul", x, c.scalar(root)), e("Add", c.scalar(1), e("Mul", c.scalar(cubic), square)))
    tanh = e("Tanh", inner)
    outer = e("Mul", c.scalar(0.5), e("Add", c.scalar(1), tanh))
    slope = e("Mul", c.scalar(root), e("Add", c.scalar(1), e("Mul", c.scalar(3 * cubic), square)))
    peak = e("Sub", c.scalar(1), e("Mul", tanh, tanh))
    return e("Add", outer, e("Mul", e("Mul", c.scalar(0.5), x), e("Mul", peak, slope)))


def swish_slope(c: Call, x: str, alpha: float) -> str:
    """Return the slope of x sigmoid(alpha x)."""
    e = c.emit
    scaled = x if alpha == 1 else e("Mul", x, c.scalar(alpha))
    sigmoid = e("Sigmoid", scaled)
    rest = e("Mul", scaled, e("Sub", c.scalar(1), sigmoid))
    return e("Mul", sigmoid, e("Add", c.scalar(1), rest))


@rule("Relu")
def _relu(c: Call) -> Sequence[str | None]:
    return [select(c, c.emit("Greater", c.y, c.scalar(0)), c.gradient)]


@rule("LeakyRelu")
def _leaky_relu(c: Call) -> Sequence[str | None]:
    scaled = c.emit("Mul", c.gradient, c.scalar(c.attribute("alpha", 0.01)))
    return [select(c, c.emit("Greater", c.x, c.scalar(0)), c.gradient, scaled)]


@rule("PRelu")
def _prelu(c: Call) -> Sequence[str | None]:
    e, negative = c.emit, c.emit("Less", c.x, c.scalar(0))
    below = select(c, negative, e("Mul", c.gradient, c.x))
    return [
        select(c, negative, e("Mul", c.gradient, c.input(1)), c.gradient) if 0 in c.wanted else None,
        c.reduced(below, 1),
    ]


@rule("Elu")
def _elu(c: Call) -> Sequence[str | None]:
    slope = c.emit("Add", c.y, c.scalar(c.attribute("alpha", 1.0)))
    return [select(c, c.emit("Greater", c.x, c.scalar(0)), c.gradient, c.emit("Mul", c.gradient, slope))]


@rule("Selu")
def _selu(c: Call) -> Sequence[str | None]:
    gamma, alpha = c.attribute("gamma", _SELU_GAMMA), c.attribute("alpha", _SELU_ALPHA)
    above = c.emit("Mul", c.gradient, c.scalar(gamma))
    below = c.emit("Mul", c.gradient, c.emit("Add", c.y, c.scalar(gamma * alpha)))
    return [select(c, c.emit("Greater", c.x, c.scalar(0)), above, below)]


@rule("Celu")
def _celu(c: Call) -> Sequence[str | None]:
    slope = c.emit("Add", c.emit("Mul", c.y, c.scalar(1 / c.attribute("alpha", 1.0))), c.scalar(1))
    return [select(c, c.emit("Greater", c.x, c.scalar(0)), c.gradient, c.emit("Mul", c.gradient, slope))]


@rule("ThresholdedRelu")
def _thresholded_relu(c: Call) -> Sequence[str | None]:
    return [select(c, c.emit("Greater", c.x, c.scalar(c.attribute("alpha", 1.0))), c.gradient)]


@rule("Shrink")
def _shrink(c: Call) -> Sequence[str | None]:
    outside = c.emit("Greater", c.emit("Abs", c.x), c.scalar(c.attribute("lambd", 0.5)))
    return [select(c, outside, c.gradient)]


@rule("HardSigmoid")
def _hard_sigmoid(c: Call) -> Sequence[str | None]:
    e = c.emit
    inside = e("And", e("Greater", c.y, c.scalar(0)), e("Less", c.y, c.scalar(1)))
    return [select(c, inside, e("Mul", c.gradient, c.scalar(c.attribute("alpha", 0.2))))]


@rule("HardSwish")
def _hard_swish(c: Call) -> Sequence[str | None]:
    e = c.emit
    slope = e("Add", e("Mul", c.x, c.scalar(1 / 3)), c.scalar(0.5))
    above = select(c, e("GreaterOrEqual", c.x, c.scalar(3)), c.gradient, e("Mul", c.gradient, slope))
    return [select(c, e("Greater", c.x, c.scalar(-3)), above)]


@rule("Softplus")
def _softplus(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", c.gradient, c.emit("Sigmoid", c.x))]


@rule("Softsign")
def _softsign(c: Call) -> Sequence[str | None]:
    below = c.emit("Add", c.scalar(1), c.emit("Abs", c.x))
    return [c.emit("Div", c.gradient, c.emit("Mul", below, below))]


@rule("Mish")
def _mish(c: Call) -> Sequence[str | None]:
    e = c.emit
    tanh = e("Tanh", e("Softplus", c.x))
    rest = e("Mul", e("Mul", c.x, e("Sigmoid", c.x)), e("Sub", c.scalar(1), e("Mul", tanh, tanh)))
    return [e("Mul", c.gradient, e("Add", tanh, rest))]


@rule("Gelu")
def _gelu(c: Call) -> Sequence[str | None]:
    slope = tanh_gelu_slope if c.attribute("approximate", "none") == "tanh" else gelu_slope
    return [c.emit("Mul", c.gradient, slope(c, c.x))]


@rule("Swish")
def _swish(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", c.gradient, swish_slope(c, c.x, c.attribute("alpha", 1.0)))]


@rule("Clip")
def _clip(c: Call) -> Sequence[str | None]:
    e, low, high = c.emit, c.input(1), c.input(2)
    inside = c.gradient
    if low:
        inside = select(c, e("GreaterOrEqual", c.x, low), inside)
    if high:
        inside = select(c, e("LessOrEqual", c.x, high), inside)
    below = select(c, e("Less", c.x, low), c.gradient) if 1 in c.wanted else ""
    above = select(c, e("Greater", c.x, high), c.gradient) if 2 in c.wanted else ""
    return [inside, c.reduced(below, 1), c.reduced(above, 2)]


@rule("Softmax")
def _softmax(c: Call) -> Sequence[str | None]:
    e, axis = c.emit, c.emit.integers([c.attribute("axis", -1)])
    weighted = e("Mul", c.gradient, c.y)
    return [e("Sub", weighted, e("Mul", c.y, e("ReduceSum", weighted, axis, keepdims=1)))]


@rule("LogSoftmax")
def _log_softmax(c: Call) -> Sequence[str | None]:
    e, axis = c.emit, c.emit.integers([c.attribute("axis", -1)])
    return [e("Sub", c.gradient, e("Mul", e("Exp", c.y), e("ReduceSum", c.gradient, axis, keepdims=1)))]
