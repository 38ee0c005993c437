"""Sums, means, extremes and norms along axes."""

from __future__ import annotations

from collections.abc import Sequence

from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.activations import select


def _is_untouched(c: Call) -> bool:
    """Return whether the operator has no axes and reduces nothing then."""
    return bool(c.attribute("noop_with_empty_axes", 0)) and not _has_axes(c)


def _has_axes(c: Call) -> bool:
    axes = c.emit.static(c.input(1)) if c.input(1) else None
    return bool(c.input(1)) and (axes is None or axes.size > 0)


def _kept(c: Call, name: str) -> str:
    """Return a value of the output's shape with the reduced axes as axes of size 1."""
    if c.attribute("keepdims", 1) or _is_untouched(c):
        return name
    if _has_axes(c):
        return c.emit("Unsqueeze", name, c.input(1))
    return c.emit("Reshape", name, c.emit.integers([1] * c.rank(c.x)))


def _sum_of(c: Call, name: str) -> str:
    """Sum a value of the input's shape over the reduced axes, which stay as axes of size 1."""
    axes = [c.input(1)] if _has_axes(c) else []
    return c.emit("ReduceSum", name, *axes, keepdims=1, noop_with_empty_axes=int(_is_untouched(c)))


def _expanded(c: Call, name: str) -> str:
    return c.emit("Expand", name, c.emit.shape_vector(c.x))


@rule("ReduceSum")
def _reduce_sum(c: Call) -> Sequence[str | None]:
    return [_expanded(c, _kept(c, c.gradient))]


@rule("ReduceMean")
def _reduce_mean(c: Call) -> Sequence[str | None]:
    e = c.emit
    count = e("Div", e.count(c.x, c.code), e.count(c.y, c.code))
    return [_expanded(c, e("Div", _kept(c, c.gradient), count))]


@rule("ReduceMax", "ReduceMin")
def _reduce_extreme(c: Call) -> Sequence[str | None]:
    """Share the gradient equally among all elements that are the largest (the smallest)."""
    e = c.emit
    hits = e("Cast", e("Equal", c.x, _kept(c, c.y)), to=c.code)
    return [e("Mul", hits, e("Div", _kept(c, c.gradient), _sum_of(c, hits)))]


@rule("ReduceProd")
def _reduce_prod(c: Call) -> Sequence[str | None]:
    # The product of the others, without a division by an element that is 0.
    e = c.emit
    zero = e("Equal", c.x, c.scalar(0))
    zeros = _sum_of(c, e("Cast", zero, to=c.code))
    filled = select(c, zero, c.scalar(1), c.x)
    axes = [c.input(1)] if _has_axes(c) else []
    product = e("ReduceProd", filled, *axes, keepdims=1, noop_with_empty_axes=int(_is_untouched(c)))
    product = e("Mul", product, _kept(c, c.gradient))
    at_zero = select(c, e("Equal", zeros, c.scalar(1)), product)
    elsewhere = select(c, e("Equal", zeros, c.scalar(0)), e("Div", product, filled))
    return [select(c, zero, at_zero, elsewhere)]


@rule("ReduceL1")
def _reduce_l1(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", _kept(c, c.gradient), c.emit("Sign", c.x))]


@rule("ReduceL2")
def _reduce_l2(c: Call) -> Sequence[str | None]:
    e, norm = c.emit, _kept(c, c.y)
    safe = select(c, e("Equal", norm, c.scalar(0)), c.scalar(1), norm)
    return [e("Mul", c.x, e("Div", _kept(c, c.gradient), safe))]


@rule("ReduceSumSquare")
def _reduce_sum_square(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", c.emit("Add", c.x, c.x), _kept(c, c.gradient))]


@rule("ReduceLogSum")
def _reduce_log_sum(c: Call) -> Sequence[str | None]:
    e = c.emit
    return [_expanded(c, e("Div", _kept(c, c.gradient), e("Exp", _kept(c, c.y))))]


@rule("ReduceLogSumExp")
def _reduce_log_sum_exp(c: Call) -> Sequence[str | None]:
    # The exponent is at most 0, however large the inputs are.
    e = c.emit
    return [e("Mul", _kept(c, c.gradient), e("Exp", e("Sub", c.x, _kept(c, c.y))))]


@rule("CumSum")
def _cumulative_sum(c: Call) -> Sequence[str | None]:
    back = 1 - c.attribute("reverse", 0)
    return [c.emit("CumSum", c.gradient, c.input(1), reverse=back, exclusive=c.attribute("exclusive", 0))]
