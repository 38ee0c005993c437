"""Functions of several values that are broadcast against each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from seed_exporter.gradients.emitter import FLOATS
from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.activations import select


@rule("Add")
def _add(c: Call) -> Sequence[str | None]:
    return [c.reduced(c.gradient, 0), c.reduced(c.gradient, 1)]


@rule("Sub")
def _sub(c: Call) -> Sequence[str | None]:
    other = c.reduced(c.gradient, 1)
    return [c.reduced(c.gradient, 0), c.emit("Neg", other) if other else None]


@rule("Mul")
def _mul(c: Call) -> Sequence[str | None]:
    a, b = c.node.input
    return [
        c.reduced(c.emit("Mul", c.gradient, b), 0) if 0 in c.wanted else None,
        c.reduced(c.emit("Mul", c.gradient, a), 1) if 1 in c.wanted else None,
    ]


@rule("Div")
def _div(c: Call) -> Sequence[str | None]:
    share = c.emit("Div", c.gradient, c.input(1))
    below = c.reduced(c.emit("Mul", share, c.y), 1) if 1 in c.wanted else None
    return [c.reduced(share, 0), c.emit("Neg", below) if below else None]


@rule("Mod")
def _mod(c: Call) -> Sequence[str | None]:
    # y = a - b q with a whole number q, for both signs that the remainder can have.
    e = c.emit
    quotient = e("Div", e("Sub", c.x, c.y), c.input(1))
    below = c.reduced(e("Mul", c.gradient, quotient), 1) if 1 in c.wanted else None
    return [c.reduced(c.gradient, 0), e("Neg", below) if below else None]


@rule("Pow")
def _pow(c: Call) -> Sequence[str | None]:
    e, (base, exponent) = c.emit, c.node.input
    known = e.static(exponent)
    if e.code(exponent) != c.code:
        exponent = e("Cast", exponent, to=c.code)
    slope = None
    if 0 in c.wanted and known is not None and np.all(known == 2):
        slope = e("Add", base, base)
    elif 0 in c.wanted:
        slope = e("Mul", exponent, e("Pow", base, e("Sub", exponent, c.scalar(1))))
        # 0 to the power of -1 is infinite, and 0 times that no number.
        slope = select(c, e("Equal", exponent, c.scalar(0)), c.scalar(0), slope)
    log = None
    if 1 in c.wanted:
        if e.code(c.input(1)) not in FLOATS:
            c.refuse("a gradient of an integer exponent")
        positive = e("Greater", base, c.scalar(0))
        log = e("Mul", c.y, e("Log", select(c, positive, base, c.scalar(1))))
    return [
        c.reduced(e("Mul", c.gradient, slope), 0) if slope else None,
        c.reduced(e("Mul", c.gradient, log), 1) if log else None,
    ]


@rule("Max", "Min")
def _extreme(c: Call) -> Sequence[str | None]:
    """Share the gradient equally among inputs that are the largest (the smallest) together."""
    e = c.emit
    hits = [e("Cast", e("Equal", each, c.y), to=c.code) for each in c.node.input]
    count = hits[0]
    for each in hits[1:]:
        count = e("Add", count, each)
    share = e("Div", c.gradient, count)
    return [c.reduced(e("Mul", share, hit), index) for index, hit in enumerate(hits)]


@rule("Sum")
def _sum(c: Call) -> Sequence[str | None]:
    return [c.reduced(c.gradient, index) for index in range(len(c.node.input))]


@rule("Mean")
def _mean(c: Call) -> Sequence[str | None]:
    share = c.emit("Mul", c.gradient, c.scalar(1 / len(c.node.input)))
    return [c.reduced(share, index) for index in range(len(c.node.input))]


@rule("Where")
def _where(c: Call) -> Sequence[str | None]:
    yes = select(c, c.x, c.gradient) if 1 in c.wanted else ""
    no = select(c, c.x, c.scalar(0), c.gradient) if 2 in c.wanted else ""
    return [None, c.reduced(yes, 1), c.reduced(no, 2)]


@rule("Range")
def _range(c: Call) -> Sequence[str | None]:
    """Sum over the numbers; the limit only decides how many there are."""
    e, (start, _, step) = c.emit, c.node.input
    turns = e("Range", e.scalar(0, TensorProto.INT64), e("Size", c.y), e.scalar(1, TensorProto.INT64))
    ahead = e("Mul", c.gradient, e("Cast", turns, to=c.code))
    totals = [e("ReduceSum", each, keepdims=0) for each in (c.gradient, ahead)]
    at_start, at_step = (e("Reshape", t, e.shape_vector(n)) for t, n in zip(totals, (start, step), strict=True))
    return [at_start, None, at_step]
