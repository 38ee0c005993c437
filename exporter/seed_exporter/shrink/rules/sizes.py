"""Sizes that stand in the graph as integers, and must become smaller with the axes that they describe."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from seed_exporter.shrink.channels import Channels
from seed_exporter.shrink.cut import Cut
from seed_exporter.shrink.registry import Call, rule


def fit_sizes(c: Call, index: int, axes: Sequence[Channels | None], copied: Sequence[Channels | None]) -> None:
    """Let an input that holds the sizes of all axes follow the axes that are cut; what can't follow isn't cut.

    Args:
        c: the call.
        index: the input, a constant or a Concat of constants and others.
        axes: channels along each of the axes.
        copied: for each axis, those of the axis whose size a 0 stands for.
    """
    places = _places(c, c.input(index), len(axes))
    changes: list[tuple[int, Channels]] = []
    for axis, channels in enumerate(axes):
        if channels is None:
            continue
        value = places[axis] if places is not None else None
        follows = value == -1 or (value == 0 and copied[axis] is channels) or value == 1 != channels.size
        if value is None or (value == 0 and not follows):
            c.block(channels)
        elif not follows:
            changes.append((axis, channels))
    if not changes:
        return

    def resize(cut: Cut, node: onnx.NodeProto) -> None:
        new = {axis: cut.count(channels) for axis, channels in changes if cut.removed(channels).any()}
        if not new:
            return
        node.input[index] = _replaced(c, cut, c.input(index), new)

    c.edit(resize)


def _places(c: Call, name: str, count: int) -> list[int | None] | None:
    """Return the integers of a vector of sizes, None for those that aren't constant; None if it isn't known at all."""
    constant = c.integers_of(name)
    if constant is not None:
        return list(constant) if len(constant) == count else None
    producer = c.producer(name)
    if producer is None or producer.op_type != "Concat" or producer.domain:
        return None
    places: list[int | None] = []
    for part in producer.input:
        constant = c.integers_of(part)
        size = c.shape(part)[0] if constant is None and c.shape(part) else None
        if constant is None and not isinstance(size, int):
            return None
        places += constant if constant is not None else [None] * int(size or 0)
    return places if len(places) == count else None


def _replaced(c: Call, cut: Cut, name: str, new: dict[int, int]) -> str:
    """Add a vector of sizes with some new ones, and return its name."""
    constant = c.integers_of(name)
    if constant is not None:
        return cut.constant([new.get(at, value) for at, value in enumerate(constant)])
    producer = c.producer(name)
    assert producer is not None
    parts, at = [], 0
    for part in producer.input:
        constant = c.integers_of(part)
        size = len(constant) if constant is not None else int(c.shape(part)[0] or 0)
        if constant is not None and not new.keys().isdisjoint(range(at, at + size)):
            part = cut.constant([new.get(at + place, value) for place, value in enumerate(constant)])
        parts.append(part)
        at += size
    return cut.joined(parts, c.position)


@rule("Shape")
def _shape(c: Call) -> None:
    """Block only the axes whose sizes are read, where that can be told."""
    rank = c.rank(0)
    read = _read(c, c.node.output[0], range(rank)[slice(c.attribute("start", 0), c.attribute("end"))])
    for axis in range(rank):
        if axis not in read:
            c.axis(0, axis)


def _read(c: Call, name: str, axes: range) -> set[int]:
    """Return those of the axes whose sizes are read from a vector of sizes."""
    consumers = c.consumers(name)
    if consumers is None:
        return set(axes)
    read: set[int] = set()
    for node, index in consumers:
        if node.op_type == "Cast" and not node.domain:
            read |= _read(c, node.output[0], axes)
        else:
            read.update(_chosen(c, node, index, axes))
    return read


def _chosen(c: Call, node: onnx.NodeProto, index: int, axes: range) -> Sequence[int]:
    """Return those of the axes whose sizes a node takes out of a vector of sizes."""
    if index or node.domain or node.op_type not in ("Gather", "Slice") or len(node.input) > 4:
        return axes
    given = [c.integers_of(name) for name in node.input[1:]]
    if any(each is None for each in given):
        return axes
    integers = [each for each in given if each is not None]
    if node.op_type == "Slice":
        return axes[slice(integers[0][0], integers[1][0])] if len(integers) > 1 else axes
    if any(not -len(axes) <= each < len(axes) for each in integers[0]):
        return axes
    return [axes[each] for each in integers[0]]
