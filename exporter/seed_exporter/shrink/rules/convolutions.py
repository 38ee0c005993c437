"""Convolutions: channels are on axis 1, and a constant other than 0 isn't one at padded borders."""

from __future__ import annotations

import numpy as np
import onnx

from seed_exporter.shrink.channels import CONVOLVED, Channels
from seed_exporter.shrink.cut import Cut
from seed_exporter.shrink.registry import F64, Call, rule
from seed_exporter.shrink.rules.linear import Dense, vector_along


@rule("Conv")
def _conv(c: Call) -> None:
    groups, weights = _groups_and_weights(c)
    c.keep_multiple(c.axis(0, 1), CONVOLVED)
    count, inputs = weights.shape[0], weights.shape[1] * groups
    padded = any(c.attribute("pads", [])) or c.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if groups > 1:
        _grouped(c, weights, groups, padded)
        return
    taps = weights.reshape(count, inputs, -1)
    dense = _dense(c, (taps != 0).any(axis=2), _sums(taps), count, padded)
    _finish(c, dense, c.axis(1, 0), c.axis(1, 1), weights.dtype)


@rule("ConvTranspose")
def _conv_transpose(c: Call) -> None:
    groups, weights = _groups_and_weights(c)
    inputs, count = weights.shape[0], weights.shape[1] * groups
    if groups > 1:
        _grouped(c, weights, groups, True)
        return
    taps = weights.reshape(inputs, count, -1)
    # The number of taps that an output sees depends on its place.
    dense = _dense(c, (taps != 0).any(axis=2).T, _sums(taps).T, count, True)
    _finish(c, dense, c.axis(1, 1), c.axis(1, 0), weights.dtype)


def _groups_and_weights(c: Call) -> tuple[int, np.ndarray]:
    weights = c.known(1) if c.is_constant(1) else None
    if weights is None or c.rank(0) != weights.ndim:
        c.refuse()
    return c.attribute("group", 1), weights


def _dense(c: Call, read: np.ndarray, matrix: np.ndarray, count: int, padded: bool) -> Dense:
    constants = c.vector(0, 1, read.shape[1])
    if padded or (c.input(2) and not c.is_constant(2)):
        constants = np.where(constants == 0, constants, np.nan)
    return Dense(read, matrix, _bias(c, count), constants)


def _finish(c: Call, dense: Dense, outputs: Channels | None, weight_inputs: Channels | None, dtype: np.dtype) -> None:
    inputs = c.tie(c.axis(0, 1), weight_inputs)
    dense.block_needed(c, inputs)
    outputs = _with_bias(c, outputs)
    rank = c.rank(0)
    if inputs is not None:

        def fold(cut: Cut, node: onnx.NodeProto) -> None:
            offset = dense.offset(cut.removed(inputs))
            if offset.any():
                name = cut.constant(cut.along(dense.bias + offset, outputs).astype(dtype))
                node.input[:] = [*node.input[:2], name]

        c.edit(fold)
    known = vector_along(dense.outputs(), rank, 1, dtype)
    c.give([c.axis(0, 0), outputs, *[None] * (rank - 2)], known)


def _grouped(c: Call, weights: np.ndarray, groups: int, padded: bool) -> None:
    """Cut whole groups, or the same channels of all groups.

    Args:
        c: the call.
        weights: of the convolution.
        groups: number of groups.
        padded: True if constants other than 0 aren't constants of the outputs.
    """
    turned = c.node.op_type == "ConvTranspose"  # weights are [in, out / groups, ...]
    per_group = weights.reshape(groups, -1, *weights.shape[1:2], int(np.prod(weights.shape[2:])))
    if turned:
        per_group = per_group.swapaxes(1, 2)
    read = (per_group != 0).any(axis=3)
    _, outs, ins = read.shape
    constants = c.vector(0, 1, groups * ins).reshape(groups, 1, ins)
    if padded:
        constants = np.where(constants == 0, constants, np.nan)
    varies = (read & np.isnan(constants)).any(axis=2)
    sums = (per_group.sum(axis=3, dtype=np.float64) * np.nan_to_num(constants)).sum(axis=2)
    known = np.where(varies, np.nan, _bias(c, groups * outs).reshape(groups, outs) + sums).reshape(-1)
    image = c.axis(0, 1)
    outputs: Channels | None = None
    if image is None:
        c.refuse()
    by_group = image.reshape(groups, ins)
    if c.grain == 0 or ins == 1 or outs == 1:
        c.tie(by_group[:, :1].repeat(ins, axis=1).reshape(-1), image)
        outputs = by_group[:, 0].repeat(outs)
        c.tie(c.axis(1, 0), image if turned else outputs)

        def regroup(cut: Cut, node: onnx.NodeProto) -> None:
            count = int((~cut.removed(by_group[:, 0])).sum())
            cut.set(node, "group", count)

        c.edit(regroup)
    else:
        first, second = c.axis(1, 0), c.axis(1, 1)
        if first is None or second is None:
            c.refuse()
        weight_inputs, outputs = (first, np.tile(second, groups)) if turned else (np.tile(second, groups), first)
        for channels in (weight_inputs, outputs):
            c.tie(np.tile(channels[: channels.size // groups], groups), channels)
        c.tie(weight_inputs, image)
        c.block(by_group, (read & (constants != 0)).any(axis=1))
    outputs = _with_bias(c, outputs)
    c.give([c.axis(0, 0), outputs, *[None] * (c.rank(0) - 2)], vector_along(known, c.rank(0), 1, weights.dtype))


def _sums(taps: np.ndarray) -> np.ndarray:
    return taps[:, :, 0] if taps.shape[2] == 1 else taps.sum(axis=2, dtype=np.float64)


def _bias(c: Call, count: int) -> F64:
    return c.vector(2, 0, count) if c.input(2) else np.zeros(count)


def _with_bias(c: Call, outputs: Channels | None) -> Channels | None:
    return c.tie(outputs, c.axis(2, 0)) if c.input(2) else outputs
