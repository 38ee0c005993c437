"""Operators that change shapes: reshaping, joining and splitting, padding, repeating."""

from __future__ import annotations

from collections.abc import Sequence

from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.indexing import moved_back


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(c: Call) -> Sequence[str | None]:
    return [c.emit("Reshape", c.gradient, c.emit.shape_vector(c.x), allowzero=1)]


@rule("Transpose")
def _transpose(c: Call) -> Sequence[str | None]:
    order = c.attribute("perm")
    if order is None:
        return [c.emit("Transpose", c.gradient)]
    return [c.emit("Transpose", c.gradient, perm=[list(order).index(axis) for axis in range(len(order))])]


@rule("Concat")
def _concat(c: Call) -> Sequence[str | None]:
    axis = c.attribute("axis")
    if len(c.node.input) == 1:
        return [c.gradient]
    sizes = c.emit.vector([c.emit.size(name, axis) for name in c.node.input])
    return c.emit.several("Split", [c.gradient, sizes], len(c.node.input), axis=axis)


@rule("Split")
def _split(c: Call) -> Sequence[str | None]:
    parts = []
    for index, gradient in enumerate(c.gradients):
        parts.append(c.emit.zeros(c.optional_output(index), c.code) if gradient is None else gradient)
    return [c.emit("Concat", *parts, axis=c.attribute("axis", 0))]


@rule("Pad")
def _pad(c: Call) -> Sequence[str | None]:
    if 2 in c.wanted:
        c.refuse("a gradient of the value that fills")
    if c.attribute("mode", "constant") != "constant":
        return [moved_back(c)]
    axes = ["", c.input(3)] if c.input(3) else []
    known = c.emit.static(c.input(1))
    back = c.emit("Neg", c.input(1)) if known is None else c.emit.integers(-int(each) for each in known)
    return [c.emit("Pad", c.gradient, back, *axes)]


@rule("Expand")
def _expand(c: Call) -> Sequence[str | None]:
    return [c.reduced(c.gradient, 0)]


@rule("Tile")
def _tile(c: Call) -> Sequence[str | None]:
    e, rank = c.emit, c.rank(c.x)
    if rank == 0:
        return [c.gradient]
    # Repeats and sizes in turns: each axis becomes two, of which the first is summed over.
    second = e.integers([1])
    pairs = e("Concat", *(e("Unsqueeze", each, second) for each in (c.input(1), e.shape_vector(c.x))), axis=1)
    split = e("Reshape", c.gradient, e("Reshape", pairs, e.integers([-1])), allowzero=1)
    return [e("ReduceSum", split, e.integers(range(0, 2 * rank, 2)), keepdims=0)]


@rule("DepthToSpace")
def _depth_to_space(c: Call) -> Sequence[str | None]:
    e, block = c.emit, c.attribute("blocksize")
    if c.attribute("mode", "DCR") == "DCR":
        return [e("SpaceToDepth", c.gradient, blocksize=block)]
    height, width = (e.size(c.x, axis) for axis in (2, 3))
    split = e("Reshape", c.gradient, e.vector([0, 0, height, block, width, block]))
    return [e("Reshape", e("Transpose", split, perm=[0, 1, 3, 5, 2, 4]), e.shape_vector(c.x))]


@rule("SpaceToDepth")
def _space_to_depth(c: Call) -> Sequence[str | None]:
    return [c.emit("DepthToSpace", c.gradient, blocksize=c.attribute("blocksize"))]
