"""Operators that take parts of a value, or change the size of an image."""

from __future__ import annotations

import numpy as np
import onnx

from seed_exporter.shrink.channels import Channels
from seed_exporter.shrink.cut import Cut
from seed_exporter.shrink.registry import Call, rule
from seed_exporter.shrink.rules.sizes import fit_sizes


@rule("Slice")
def _slice(c: Call) -> None:
    if len(c.node.input) < 3:
        c.refuse()  # before opset 10 these were attributes
    rank, known = c.rank(0), c.known(0)
    starts, ends = c.integers(1), c.integers(2)
    if starts is None or ends is None:
        c.refuse()
    axes = c.integers(3) if c.input(3) else list(range(len(starts)))
    steps = c.integers(4) if c.input(4) else [1] * len(starts)
    if axes is None or steps is None:
        c.refuse()
    result: list[Channels | None] = [None] * rank
    windows: list[tuple[int, Channels, slice]] = []
    taken = [slice(None)] * rank
    for place, axis in enumerate(each % rank for each in axes):
        taken[axis] = slice(starts[place], ends[place], steps[place])
        if steps[place] == 1 and (channels := c.axis(0, axis)) is not None:
            result[axis] = channels[taken[axis]]
            windows.append((place, channels, taken[axis]))
    for axis in range(rank):
        if taken[axis] == slice(None):
            result[axis] = c.axis(0, axis)
    if known is not None:
        known = known[
            tuple(window if size > 1 else slice(None) for window, size in zip(taken, known.shape, strict=True))
        ]
    c.give(result, known)

    def move(cut: Cut, node: onnx.NodeProto) -> None:
        first, last = list(starts), list(ends)
        for place, channels, window in windows:
            begin, end, _ = window.indices(channels.size)
            first[place], last[place] = cut.count(channels[:begin]), cut.count(channels[: max(begin, end)])
        if any(cut.removed(channels).any() for _, channels, _ in windows):
            node.input[1], node.input[2] = cut.constant(first), cut.constant(last)
            if not c.input(3):
                node.input[:] = [*node.input[:3], cut.constant(axes), *node.input[4:]]

    c.edit(move)


@rule("Gather")
def _gather(c: Call) -> None:
    rank, places = c.rank(0), c.rank(1)
    axis = c.attribute("axis", 0) % rank
    indices, known = c.integers(1), c.known(0) if not c.is_constant(0) else None
    result = [c.axis(0, each) for each in range(rank) if each != axis]
    inner: list[Channels | None] = [None] * places
    if indices is None or places > 1:
        c.give([*result[:axis], *inner, *result[axis:]])
        return
    if known is not None and known.shape[axis] > 1:
        known = np.take(known, indices if places else indices[0], axis)
    elif known is not None and not places:
        known = np.take(known, 0, axis)
    if places == 1 and (channels := c.axis(0, axis)) is not None:
        chosen = channels[np.array(indices)]
        inner = [chosen]

        def renumber(cut: Cut, node: onnx.NodeProto) -> None:
            if not cut.removed(channels).any():
                return
            new = np.cumsum(~cut.removed(channels)) - 1
            left = np.array(indices)[~cut.removed(chosen)] % channels.size
            node.input[1] = cut.constant(new[left])

        c.edit(renumber)
    c.give([*result[:axis], *inner, *result[axis:]], known)


@rule("Pad")
def _pad(c: Call) -> None:
    rank, known = c.rank(0), c.known(0)
    pads = c.integers(1) if c.input(1) else c.attribute("pads")
    axes = c.integers(3) if c.input(3) else list(range(rank))
    if pads is None or axes is None:
        c.refuse()
    padded = {axis % rank for place, axis in enumerate(axes) if pads[place] or pads[place + len(axes)]}
    fill = c.vector(2, 0, 1)[0] if c.input(2) and c.rank(2) else c.attribute("value", 0.0)
    if c.input(2) and not c.rank(2):
        value = c.known(2)
        fill = np.nan if value is None else float(value)
    if known is not None and padded and c.attribute("mode", "constant") == "constant":
        known = np.where(known == fill, known, np.nan)
    if known is not None and any(known.shape[axis] > 1 for axis in padded):
        known = None
    c.give([None if axis in padded else c.axis(0, axis) for axis in range(rank)], known)


@rule("Resize", "Upsample")
def _resize(c: Call) -> None:
    shape, rank, known = c.shape(c.node.output[0]), c.rank(0), c.known(0)
    before = c.shape(c.node.input[0])
    if c.attribute("axes") or (c.node.op_type == "Resize" and len(c.node.input) < 3):
        c.refuse()
    stays = [isinstance(one, int) and one == other for one, other in zip(before, shape, strict=True)]
    axes = [c.axis(0, axis) if stays[axis] else None for axis in range(rank)]
    if known is not None and any(known.shape[axis] > 1 for axis in range(rank) if not stays[axis]):
        known = None
    if known is not None and c.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        known = None
    c.give(axes, known)
    if c.input(3):
        fit_sizes(c, 3, axes, [None] * rank)
