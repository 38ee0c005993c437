"""Normalizations: statistics over an axis need all of its channels."""

from __future__ import annotations

import numpy as np

from seed_exporter.shrink.registry import Call, rule

_EPSILON = 1e-5
"""ONNX's default for the attribute of this name."""


@rule("BatchNormalization")
def _batch_norm(c: Call) -> None:
    if c.attribute("training_mode", 0) or any(c.node.output[1:]):
        c.refuse()
    channels = c.tie(c.axis(0, 1), *(c.axis(index, 0) for index in range(1, 5)))
    axes = [channels if axis == 1 else c.axis(0, axis) for axis in range(c.rank(0))]
    c.give(axes, _normalized(c))


def _normalized(c: Call) -> np.ndarray | None:
    x, *vectors = (c.known(index) for index in range(5))
    if x is None or any(vector is None for vector in vectors):
        return None
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale, offset, mean, variance = (vector.reshape(shape) for vector in vectors if vector is not None)
    with np.errstate(all="ignore"):
        return scale * (x - mean) / np.sqrt(variance + np.float32(c.attribute("epsilon", _EPSILON))) + offset


@rule("InstanceNormalization")
def _instance_norm(c: Call) -> None:
    channels = c.tie(c.axis(0, 1), c.axis(1, 0), c.axis(2, 0))
    c.give([c.axis(0, 0), channels, *[None] * (c.rank(0) - 2)])


@rule("LayerNormalization", "RMSNormalization")
def _layer_norm(c: Call) -> None:
    if any(c.node.output[1:]):
        c.refuse()
    rank = c.rank(0)
    first = c.attribute("axis", -1) % rank
    c.give([c.axis(0, axis) if axis < first else None for axis in range(rank)])


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: Call) -> None:
    rank = c.rank(0)
    axis = c.attribute("axis", -1 if c.opset >= 13 else 1) % rank
    over = {axis} if c.opset >= 13 else set(range(axis, rank))
    c.give([None if axis in over else c.axis(0, axis) for axis in range(rank)])
