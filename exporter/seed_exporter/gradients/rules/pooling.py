"""Pooling over windows and over whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.convolutions import Window, spread, window_of
from seed_exporter.gradients.rules.indexing import scattered


def _spatial_axes(c: Call) -> str:
    return c.emit.integers(range(2, c.rank(c.x)))


@rule("GlobalAveragePool")
def _global_average(c: Call) -> Sequence[str | None]:
    e = c.emit
    count = e("Div", e.count(c.x, c.code), e.count(c.y, c.code))
    return [e("Expand", e("Div", c.gradient, count), e.shape_vector(c.x))]


@rule("GlobalMaxPool")
def _global_max(c: Call) -> Sequence[str | None]:
    e = c.emit
    hits = e("Cast", e("Equal", c.x, c.y), to=c.code)
    return [e("Mul", hits, e("Div", c.gradient, e("ReduceSum", hits, _spatial_axes(c), keepdims=1)))]


@rule("MaxPool")
def _max_pool(c: Call) -> Sequence[str | None]:
    if c.attribute("storage_order", 0):
        c.refuse("storage_order 1")
    # The operator's own indices count through the whole tensor.
    return [scattered(c, c.gradient, c.optional_output(1))]


@rule("AveragePool")
def _average_pool(c: Call) -> Sequence[str | None]:
    window = window_of(c, c.attribute("kernel_shape"), c.x)
    return [_summed_back(c, c.emit("Div", c.gradient, _divisors(c, window)), window)]


@rule("LpPool")
def _norm_pool(c: Call) -> Sequence[str | None]:
    window = window_of(c, c.attribute("kernel_shape"), c.x)
    return [c.emit("Mul", _summed_back(c, _per_power(c), window), _power_slope(c))]


@rule("GlobalLpPool")
def _global_norm(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", _per_power(c), _power_slope(c))]


def _per_power(c: Call) -> str:
    """Return the gradient of the sum of powers below a norm, but for the factor p; 0 where the norm is."""
    e, p = c.emit, c.attribute("p", 2)
    if p == 1:
        return c.gradient
    zero = c.scalar(0)
    norm = e("Where", e("Equal", c.y, zero), c.scalar(1), c.y)
    return e("Where", e("Equal", c.y, zero), zero, e("Div", c.gradient, e("Pow", norm, c.scalar(p - 1))))


def _power_slope(c: Call) -> str:
    """Return the slope of |x| ** p, but for the factor p."""
    e, p = c.emit, c.attribute("p", 2)
    if p == 2:
        return c.x
    sign = e("Sign", c.x)
    return sign if p == 1 else e("Mul", e("Pow", e("Abs", c.x), c.scalar(p - 1)), sign)


def _summed_back(c: Call, share: str, window: Window) -> str:
    """Add up, for each element of the first input, what the windows that hold it give to each of their elements."""
    e, spatial = c.emit, range(2, 2 + len(window.kernel))
    # All channels take the same kernel of ones, so that they are more images of one channel.
    flat = e("Reshape", share, e.vector([-1, 1, *(e.size(c.y, axis) for axis in spatial)]))
    ones = e.constant(np.ones((1, 1, *window.kernel), np.float32))
    if c.code != 1:
        ones = e("Cast", ones, to=c.code)
    return e("Reshape", spread(c, flat, ones, _reaching(c, window), 1, c.x), e.shape_vector(c.x))


def _reaching(c: Call, window: Window) -> Window:
    """Return the window with pads that its last position reaches: with ceil_mode that may be past the operator's."""
    before, after = (c.shape(name)[2:] for name in (c.x, c.y))
    ends = list(window.ends)
    for axis, (size, count) in enumerate(zip(before, after, strict=True)):
        if isinstance(size, int) and isinstance(count, int):
            reach = (count - 1) * window.strides[axis] + window.extents[axis]
            ends[axis] = max(ends[axis], reach - size - window.begins[axis])
    return replace(window, ends=tuple(ends))


def _divisors(c: Call, window: Window) -> str:
    """Return the number of elements that each window averages, `(1, 1, ...)`, or one number for all."""
    e = c.emit
    counts_pads = bool(c.attribute("count_include_pad", 0)) or not any(window.pads)
    if counts_pads and not c.attribute("ceil_mode", 0):
        return c.scalar(float(np.prod(window.kernel)))
    if counts_pads and any(window.pads):
        c.refuse("ceil_mode with count_include_pad")
    spatial = range(2, 2 + len(window.kernel))
    one = e("Expand", c.scalar(1), e.vector([1, 1, *(e.size(c.x, axis) for axis in spatial)]))
    ones = e.constant(np.ones((1, 1, *window.kernel), np.float32))
    if c.code != 1:
        ones = e("Cast", ones, to=c.code)
    # With ceil_mode the last window may reach over the pads, by less than a stride.
    over = [stride - 1 if c.attribute("ceil_mode", 0) else 0 for stride in window.strides]
    ends = [end + more for end, more in zip(window.ends, over, strict=True)]
    counts = e("Conv", one, ones, pads=[*window.begins, *ends], strides=window.strides, dilations=window.dilations)
    if not any(over):
        return counts
    starts, sizes = e.integers([0] * len(ends)), e.vector([e.size(c.y, axis) for axis in spatial])
    return e("Slice", counts, starts, sizes, e.integers(spatial))
