"""Functions of one value: roots, exponentials, trigonometry, casts, and those without a slope."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from seed_exporter.gradients.emitter import FLOATS
from seed_exporter.gradients.registry import RULES, Call, Rule, rule

_Slope = Callable[[Call], str]


def _square(c: Call, name: str) -> str:
    return c.emit("Mul", name, name)


def _one_minus_square(c: Call, name: str) -> str:
    return c.emit("Sub", c.scalar(1), _square(c, name))


def _root(c: Call, name: str) -> str:
    return c.emit("Reciprocal", c.emit("Sqrt", name))


def _neg(c: Call, name: str) -> str:
    return c.emit("Neg", name)


def _erf(c: Call) -> str:
    return c.emit("Mul", c.scalar(2 / math.sqrt(math.pi)), c.emit("Exp", _neg(c, _square(c, c.x))))


_SLOPES: Final[dict[str, _Slope]] = {
    "Abs": lambda c: c.emit("Sign", c.x),
    "Exp": lambda c: c.y,
    "Reciprocal": lambda c: _neg(c, _square(c, c.y)),
    "Sin": lambda c: c.emit("Cos", c.x),
    "Cos": lambda c: _neg(c, c.emit("Sin", c.x)),
    "Tan": lambda c: c.emit("Add", _square(c, c.y), c.scalar(1)),
    "Asin": lambda c: _root(c, _one_minus_square(c, c.x)),
    "Acos": lambda c: _neg(c, _root(c, _one_minus_square(c, c.x))),
    "Atan": lambda c: c.emit("Reciprocal", c.emit("Add", _square(c, c.x), c.scalar(1))),
    "Sinh": lambda c: c.emit("Cosh", c.x),
    "Cosh": lambda c: c.emit("Sinh", c.x),
    "Asinh": lambda c: _root(c, c.emit("Add", _square(c, c.x), c.scalar(1))),
    "Acosh": lambda c: _root(c, c.emit("Sub", _square(c, c.x), c.scalar(1))),
    "Atanh": lambda c: c.emit("Reciprocal", _one_minus_square(c, c.x)),
    "Tanh": lambda c: _one_minus_square(c, c.y),
    "Sigmoid": lambda c: c.emit("Mul", c.y, c.emit("Sub", c.scalar(1), c.y)),
    "Erf": _erf,
}
"""Slope of each function, from its input and its output."""


def _times(slope: _Slope) -> Rule:
    return lambda c: [c.emit("Mul", c.gradient, slope(c))]


for _operator, _slope in _SLOPES.items():
    RULES["", _operator] = _times(_slope)


@rule("Neg")
def _negative(c: Call) -> Sequence[str | None]:
    return [_neg(c, c.gradient)]


@rule("Log")
def _log(c: Call) -> Sequence[str | None]:
    return [c.emit("Div", c.gradient, c.x)]


@rule("Sqrt")
def _sqrt(c: Call) -> Sequence[str | None]:
    return [c.emit("Div", c.gradient, c.emit("Add", c.y, c.y))]


@rule("Identity")
def _identity(c: Call) -> Sequence[str | None]:
    return [c.gradient]


@rule("Cast", "CastLike")
def _cast(c: Call) -> Sequence[str | None]:
    code = c.emit.code(c.x)
    return [c.emit("Cast", c.gradient, to=code) if code in FLOATS else None]


@rule("Dropout")
def _dropout(c: Call) -> Sequence[str | None]:
    training = c.emit.static(c.input(2)) if c.input(2) else False
    if training is None or training:
        c.refuse("dropout in training mode")
    return [c.gradient]


@rule("Floor", "Ceil", "Round", "Sign", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli")
def _flat(c: Call) -> Sequence[str | None]:
    """Give no gradient: the slope is 0 wherever it exists, or only the input's shape is read."""
    return []
