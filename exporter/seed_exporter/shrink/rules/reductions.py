"""Pooling and reductions: channels stay what they are along the axes that aren't reduced."""

from __future__ import annotations

import numpy as np

from seed_exporter.shrink.channels import POOLED
from seed_exporter.shrink.registry import Call, rule

_KEEP_CONSTANTS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin"})
"""Reductions of a constant to itself; others keep 0 only."""
_KEEP_ZEROS = frozenset({"ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"})


@rule("GlobalAveragePool", "GlobalMaxPool", "MaxPool")
def _pool(c: Call) -> None:
    if any(c.node.output[1:]):
        c.refuse()  # indices count the elements of all channels
    if c.node.op_type == "MaxPool":
        c.keep_multiple(c.axis(0, 1), POOLED)
    c.give([c.axis(0, 0), c.axis(0, 1), *[None] * (c.rank(0) - 2)], _flat(c))


@rule("AveragePool", "LpPool")
def _average_pool(c: Call) -> None:
    known = _flat(c)
    keeps = c.node.op_type == "AveragePool" and not c.attribute("count_include_pad", 0)
    c.keep_multiple(c.axis(0, 1), POOLED)
    if known is not None and not keeps:
        known = np.where(known == 0, known, np.nan)
    c.give([c.axis(0, 0), c.axis(0, 1), *[None] * (c.rank(0) - 2)], known)


def _flat(c: Call) -> np.ndarray | None:
    """Return what is known of an image that is the same everywhere."""
    known = c.known(0)
    return known if known is not None and all(size == 1 for size in known.shape[2:]) else None


@rule(*_KEEP_CONSTANTS, *_KEEP_ZEROS)
def _reduce(c: Call) -> None:
    rank = c.rank(0)
    axes = c.integers(1) if c.input(1) else c.attribute("axes")
    if c.input(1) and axes is None:
        c.refuse()
    if not axes:
        if c.attribute("noop_with_empty_axes", 0):
            c.refuse()
        axes = range(rank)
    over = {axis % rank for axis in axes}
    keeps = c.attribute("keepdims", 1)
    kept = [axis for axis in range(rank) if axis not in over or keeps]
    known = c.known(0)
    if known is not None:
        if any(known.shape[axis] != 1 for axis in over):
            known = None
        else:
            known = known if keeps else known.reshape([known.shape[axis] for axis in kept])
            known = known if c.node.op_type in _KEEP_CONSTANTS else np.where(known == 0, known, np.nan)
    c.give([None if axis in over else c.axis(0, axis) for axis in kept], known)
