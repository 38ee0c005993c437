"""Operators that pick elements: gathering, scattering, slicing with steps, sorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from seed_exporter.gradients.registry import Call, rule

_NARROW: Final = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def scattered(c: Call, gradient: str, indices: str) -> str:
    """Add gradients to zeros of the first input's shape.

    Args:
        c: the call.
        gradient: gradients of any shape.
        indices: for each gradient, its element's number in the first input.
    """
    e, flat = c.emit, c.emit.integers([-1])
    shape = e.shape_vector(c.x)
    zero = helper.make_tensor("", c.code, [1], [0])
    zeros = e("ConstantOfShape", e("ReduceProd", shape, keepdims=1), value=zero)
    found = _added(c, "ScatterElements", zeros, e("Reshape", indices, flat), e("Reshape", gradient, flat))
    return e("Reshape", found, shape, allowzero=1)


def _added(c: Call, op: str, zeros: str, indices: str, updates: str, **attributes: Any) -> str:
    """Scatter by adding: in float32 where the type is narrower, since ONNX Runtime adds no others."""
    e, code = c.emit, c.code
    if code not in _NARROW:
        return e(op, zeros, indices, updates, reduction="add", **attributes)
    wide = [e("Cast", each, to=TensorProto.FLOAT) for each in (zeros, updates)]
    return e("Cast", e(op, wide[0], indices, wide[1], reduction="add", **attributes), to=code)


def moved_back(c: Call) -> str:
    """Return the gradient of an operator that only moves elements: its own moves on their numbers say where to."""
    e = c.emit
    numbers = e("Range", e.constant(np.array(0, np.int64)), e("Size", c.x), e.constant(np.array(1, np.int64)))
    numbers = e("Reshape", numbers, e.shape_vector(c.x), allowzero=1)
    attributes = {each.name: helper.get_attribute_value(each) for each in c.node.attribute}
    indices = e(c.node.op_type, numbers, *c.node.input[1:], domain=c.node.domain, **attributes)
    return scattered(c, c.gradient, indices)


@rule("GatherND", "Compress")
def _picked(c: Call) -> Sequence[str | None]:
    return [moved_back(c)]


@rule("Gather")
def _gather(c: Call) -> Sequence[str | None]:
    e, (x, indices) = c.emit, c.node.input
    rank, added = c.rank(x), c.rank(indices)
    axis = c.attribute("axis", 0) % rank
    gradient, rows = c.gradient, e("Unsqueeze", indices, e.integers([-1]))
    if axis == 0:
        return [_added(c, "ScatterND", e.zeros(x, c.code), rows, gradient)]
    # ScatterND looks at leading axes: the gathered one comes first, and back.
    lead = [*range(axis, axis + added), *range(axis), *range(axis + added, rank - 1 + added)]
    order = [axis, *range(axis), *range(axis + 1, rank)]
    zeros = e("Transpose", e.zeros(x, c.code), perm=order)
    found = _added(c, "ScatterND", zeros, rows, e("Transpose", gradient, perm=lead))
    return [e("Transpose", found, perm=[order.index(each) for each in range(rank)])]


@rule("GatherElements")
def _gather_elements(c: Call) -> Sequence[str | None]:
    axis = c.attribute("axis", 0)
    zeros = c.emit.zeros(c.x, c.code)
    return [_added(c, "ScatterElements", zeros, c.input(1), c.gradient, axis=axis)]


@rule("ScatterElements")
def _scatter_elements(c: Call) -> Sequence[str | None]:
    axis = c.attribute("axis", 0)
    updates = c.emit("GatherElements", c.gradient, c.input(1), axis=axis) if 2 in c.wanted else None
    return [_overwritten(c, axis=axis), None, updates]


@rule("ScatterND")
def _scatter_nd(c: Call) -> Sequence[str | None]:
    updates = c.emit("GatherND", c.gradient, c.input(1)) if 2 in c.wanted else None
    return [_overwritten(c), None, updates]


def _overwritten(c: Call, **attributes: Any) -> str | None:
    reduction = c.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        c.refuse(f"reduction {reduction}")
    if 0 not in c.wanted or reduction == "add":
        return c.gradient
    return c.emit(c.node.op_type, c.gradient, c.input(1), c.emit.zeros(c.input(2), c.code), **attributes)


@rule("TopK")
def _top_k(c: Call) -> Sequence[str | None]:
    indices = c.optional_output(1)
    axis = c.attribute("axis", -1)
    return [_added(c, "ScatterElements", c.emit.zeros(c.x, c.code), indices, c.gradient, axis=axis)]


@rule("Slice")
def _slice(c: Call) -> Sequence[str | None]:
    e, (x, starts) = c.emit, c.node.input[:2]
    steps = e.static(c.input(4)) if c.input(4) else np.ones(1)
    if steps is None or not np.all(steps == 1):
        return [moved_back(c)]
    known = e.static(starts)
    axes = e.static(c.input(3)) if c.input(3) else None
    if known is None or (c.input(3) and axes is None):
        return [moved_back(c)]
    rank = c.rank(x)
    places = [int(axis) % rank for axis in (range(len(known)) if axes is None else axes)]
    at = e.integers(places)
    whole, part = (e("Gather", e.shape_vector(name), at) for name in (x, c.y))
    begins = e.integers(int(start) for start in known)
    if any(start < 0 for start in known):
        negative = e.integers(int(start < 0) for start in known)
        begins = e("Add", begins, e("Mul", whole, negative))
    begins = e("Min", e("Max", begins, e.constant(np.zeros(1, np.int64))), whole)
    ends = e("Sub", e("Sub", whole, begins), part)
    return [e("Pad", c.gradient, e("Concat", begins, ends, axis=0), "", at)]


@rule("Trilu")
def _triangle(c: Call) -> Sequence[str | None]:
    rest = [c.input(1)] if c.input(1) else []
    return [c.emit("Trilu", c.gradient, *rest, upper=c.attribute("upper", 1))]


@rule("ReverseSequence")
def _reverse_sequence(c: Call) -> Sequence[str | None]:
    places = {"batch_axis": c.attribute("batch_axis", 1), "time_axis": c.attribute("time_axis", 0)}
    return [c.emit("ReverseSequence", c.gradient, c.input(1), **places)]


@rule("OneHot")
def _one_hot(c: Call) -> Sequence[str | None]:
    """Of the two values: the gradients where the second stands, and the rest."""
    e, (indices, depth, _) = c.emit, c.node.input
    places = e("Cast", e.constant(np.array([0, 1], np.float32)), to=c.code)
    hot = e("OneHot", indices, depth, places, axis=c.attribute("axis", -1))
    on, total = e("ReduceSum", e("Mul", c.gradient, hot), keepdims=0), e("ReduceSum", c.gradient, keepdims=0)
    first = e.integers([0])
    return [None, None, e("Concat", e("Unsqueeze", e("Sub", total, on), first), e("Unsqueeze", on, first), axis=0)]
