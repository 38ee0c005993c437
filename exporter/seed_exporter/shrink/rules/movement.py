"""Operators that arrange elements anew: reshaping, transposing, joining, splitting."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod

import numpy as np
import onnx

from seed_exporter.graph.index import Dim
from seed_exporter.shrink.channels import Channels
from seed_exporter.shrink.cut import Cut
from seed_exporter.shrink.registry import Call, rule
from seed_exporter.shrink.rules.sizes import fit_sizes
from seed_exporter.shrink.values import KNOWN_MAX, LENGTH_MAX


@rule("Flatten", "Squeeze", "Unsqueeze")
def _rearrange(c: Call) -> None:
    _give_reshaped(c, c.shape(c.node.output[0]))


@rule("Reshape")
def _reshape(c: Call) -> None:
    axes = _give_reshaped(c, c.shape(c.node.output[0]))
    copies = not c.attribute("allowzero", 0)
    fit_sizes(c, 1, axes, [c.axis(0, at) if copies and at < c.rank(0) else None for at in range(len(axes))])


def _give_reshaped(c: Call, after: Sequence[Dim]) -> list[Channels | None]:
    before = c.shape(c.node.input[0])
    axes: list[Channels | None] = [None] * len(after)
    known = c.known(0)
    for old, new in _blocks(before, after):
        for axis, channels in zip(new, _through_block(c, before, after, old, new), strict=True):
            axes[axis] = channels
    if known is not None:
        known = _known_reshaped(known, before, after)
    c.give(axes, known)
    return axes


def _through_block(
    c: Call, before: Sequence[Dim], after: Sequence[Dim], old: range, new: range
) -> list[Channels | None]:
    """Return the channels along new axes whose elements are those of some old axes."""
    found = [(axis, channels) for axis in old if (channels := c.axis(0, axis)) is not None]
    nothing: list[Channels | None] = [None] * len(new)
    if not found:
        return nothing
    if len(old) == len(new) == 1:
        return [found[0][1]]
    # One axis at most can be cut: what is left must be a whole block.
    chosen, channels = found[0 if c.grain == 0 else -1]
    for axis, others in found:
        if axis != chosen:
            c.block(others)
    sizes = [_number(before[axis]) for axis in old]
    if prod(sizes) > LENGTH_MAX:
        for _, each in found:
            c.block(each)
        return nothing
    shape = [channels.size if axis == chosen else 1 for axis in old]
    spread = np.broadcast_to(channels.reshape(shape), sizes).reshape([_number(after[axis]) for axis in new])
    long = [place for place, size in enumerate(spread.shape) if size > 1]
    rows_by_place = {place: np.moveaxis(spread, place, 0).reshape(spread.shape[place], -1) for place in long}
    alike = [place for place, rows in rows_by_place.items() if (rows == rows[:, :1]).all()]
    place = (alike or long)[min(c.grain, len(alike or long) - 1)]
    rows = rows_by_place[place]
    c.tie(rows[:, :1].repeat(rows.shape[1], axis=1).reshape(-1), rows.reshape(-1))
    nothing[place] = rows[:, 0].copy()
    return nothing


def _blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[tuple[range, range]]:
    """Pair runs of axes that hold the same elements in the same order, from both ends as far as sizes are known."""
    first = 0
    pairs = []
    while first < min(len(before), len(after)) and before[first] == after[first] and before[first] is not None:
        pairs.append((range(first, first + 1), range(first, first + 1)))
        first += 1
    old, new = len(before), len(after)
    while old > first and new > first:
        ends = old, new
        old, new = old - 1, new - 1
        if before[old] == after[new] and before[old] is not None:
            pairs.append((range(old, ends[0]), range(new, ends[1])))
            continue
        left, right = before[old], after[new]
        while left != right:
            if not isinstance(left, int) or not isinstance(right, int):
                return pairs
            if left < right and old > first:
                old -= 1
                left = _times(left, before[old])
            elif right < left and new > first:
                new -= 1
                right = _times(right, after[new])
            else:
                return pairs
        if left is None:
            return pairs
        pairs.append((range(old, ends[0]), range(new, ends[1])))
    return pairs


def _known_reshaped(known: np.ndarray, before: Sequence[Dim], after: Sequence[Dim]) -> np.ndarray | None:
    """Reshape what is known of a value: along each block that it varies in, all elements."""
    whole: list[int] = [1] * len(before)
    result: list[int] = [1] * len(after)
    for old, new in _blocks(before, after):
        if any(known.shape[axis] != 1 for axis in old):
            for axis in old:
                whole[axis] = _number(before[axis])
            for axis in new:
                result[axis] = _number(after[axis])
    varies = any(size != 1 and whole[axis] == 1 for axis, size in enumerate(known.shape))
    if varies or prod(whole) > KNOWN_MAX:
        return None
    return np.broadcast_to(known, whole).reshape(result)


def _times(count: int, dim: Dim) -> Dim:
    return count * dim if isinstance(dim, int) else None


def _number(dim: Dim) -> int:
    return dim if isinstance(dim, int) else 1


@rule("Transpose")
def _transpose(c: Call) -> None:
    order = c.attribute("perm") or list(reversed(range(c.rank(0))))
    known = c.known(0)
    c.give([c.axis(0, axis) for axis in order], None if known is None else known.transpose(order))


@rule("Concat")
def _concat(c: Call) -> None:
    rank, names = c.rank(0), list(c.node.input)
    axis = c.attribute("axis") % rank
    axes: list[Channels | None] = []
    for each in range(rank):
        parts = [c.axis(index, each) for index in range(len(names))]
        if each != axis:
            axes.append(c.tie(*parts))
        elif any(part is None for part in parts):
            for part in parts:
                c.block(part)
            axes.append(None)
        else:
            axes.append(np.concatenate([part for part in parts if part is not None]))
    c.give(axes, _known_joined(c, axis, axes[axis]))


def _known_joined(c: Call, axis: int, channels: Channels | None) -> np.ndarray | None:
    known = [c.known(index) for index in range(len(c.node.input))]
    first = next((each for each in known if each is not None), None)
    if channels is None or first is None:
        return None
    rank = c.rank(0)
    parts = []
    for index, each in enumerate(known):
        part = c.axis(index, axis)
        values = np.full([1] * rank, np.nan, first.dtype) if each is None else each
        size = 1 if part is None else part.size
        parts.append(np.broadcast_to(values, [size if at == axis else n for at, n in enumerate(values.shape)]))
    sizes = [max(part.shape[at] for part in parts) for at in range(rank)]
    if prod(sizes) * channels.size > KNOWN_MAX:
        return None
    spread = [
        np.broadcast_to(part, [part.shape[at] if at == axis else size for at, size in enumerate(sizes)])
        for part in parts
    ]
    return np.concatenate(spread, axis=axis)


@rule("Split")
def _split(c: Call) -> None:
    rank = c.rank(0)
    axis = c.attribute("axis", 0) % rank
    channels, known, count = c.axis(0, axis), c.known(0), len(c.node.output)
    axes = [channels if each == axis else c.axis(0, each) for each in range(rank)]
    if channels is None:
        for output in range(count):
            c.give([None if each == axis else one for each, one in enumerate(axes)], output=output)
        return
    sizes = c.integers(1) if c.input(1) else c.attribute("split")
    if sizes is None:
        if c.input(1):
            c.refuse()
        least = -(-channels.size // count)
        sizes = [min(least, channels.size - least * each) for each in range(count)]
    ends = list(accumulate(sizes))
    parts = [channels[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    for output, (part, end) in enumerate(zip(parts, ends, strict=True)):
        here = known
        if known is not None and known.shape[axis] > 1:
            here = np.take(known, range(end - part.size, end), axis)
        c.give([part if each == axis else one for each, one in enumerate(axes)], here, output)

    def resize(cut: Cut, node: onnx.NodeProto) -> None:
        if not cut.removed(channels).any():
            return
        left = [cut.count(part) for part in parts]
        if c.opset < 13:
            cut.set(node, "split", left)
        else:
            cut.set(node, "num_outputs", None)
            node.input[:] = [node.input[0], cut.constant(left)]

    c.edit(resize)


@rule("Expand")
def _expand(c: Call) -> None:
    shape = c.shape(c.node.output[0])
    before = c.shape(c.node.input[0])
    lead = len(shape) - len(before)
    axes = [c.axis(0, at - lead) if at >= lead and before[at - lead] != 1 else None for at in range(len(shape))]
    known = c.known(0)
    c.give(axes, None if known is None else known.reshape((1,) * lead + known.shape))
    fit_sizes(c, 1, axes, [None] * len(shape))
