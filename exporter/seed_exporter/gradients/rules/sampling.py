"""Sampling of images at places that the graph computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onnx import TensorProto

from seed_exporter.gradients.emitter import Size
from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.indexing import scattered


class _Axis(NamedTuple):
    """Where samples lie along one axis of an image, `(batch, samples)` each.

    Attributes:
        size: pixels of the axis, an integer.
        near: the pixel before each sample, of floats.
        shares: weights of that pixel and of the next.
        slope: how far a sample moves with its coordinate.
    """

    size: str
    near: str
    shares: tuple[str, str]
    slope: str


@rule("GridSample")
def _grid_sample(c: Call) -> Sequence[str | None]:
    """Four pixels around each sample have a part in it; pixels outside of the image are 0."""
    e, (x, grid) = c.emit, c.node.input
    mode, padding = c.attribute("mode", "linear"), c.attribute("padding_mode", "zeros")
    if mode not in ("linear", "bilinear") or padding == "reflection" or c.rank(x) != 4:
        c.refuse(f"mode {mode} with padding {padding} of rank {c.rank(x)}: only linear, zeros or border, 4")
    places = e("Reshape", grid, e.integers([0, -1, 2]))
    pair = e.several("Split", [places, e.integers([1, 1])], 2, axis=2)
    across, down = (_axis(c, e("Squeeze", pair[at], e.integers([2])), e.size(x, 3 - at)) for at in (0, 1))
    gradient = e("Reshape", c.gradient, e.integers([0, 0, -1]))
    planes = _planes(c, down, across)
    found = []
    sums: dict[tuple[int, int], str] = {}
    for row in (0, 1):
        for column in (0, 1):
            inside, indices = _pixel(c, planes, down, across, row, column)
            share = e("Mul", e("Mul", down.shares[row], across.shares[column]), inside)
            found.append((e("Mul", gradient, e("Unsqueeze", share, e.integers([1]))), indices))
            pixels = e("Gather", e("Reshape", x, e.integers([-1])), indices)
            product = e("ReduceSum", e("Mul", gradient, pixels), e.integers([1]), keepdims=0)
            sums[row, column] = e("Mul", product, inside)
    updates, indices = (e("Concat", *each, axis=2) for each in zip(*found, strict=True))
    moves = [
        _move(c, across, down, [(sums[row, 0], sums[row, 1]) for row in (0, 1)]),
        _move(c, down, across, [(sums[0, column], sums[1, column]) for column in (0, 1)]),
    ]
    pairs = e("Concat", *(e("Unsqueeze", each, e.integers([2])) for each in moves), axis=2)
    return [scattered(c, updates, indices), e("Reshape", pairs, e.shape_vector(grid))]


def _axis(c: Call, coordinates: str, size: Size) -> _Axis:
    """Return where coordinates between -1 and 1 lie along an axis."""
    e = c.emit
    count = _integer(c, size) if isinstance(size, int) else e("Squeeze", size)
    pixels, half, one = e("Cast", count, to=c.code), c.scalar(0.5), c.scalar(1)
    last = e("Sub", pixels, one)
    slope = e("Mul", half, last if c.attribute("align_corners", 0) else pixels)
    at = e("Add", e("Mul", coordinates, slope), e("Mul", half, last))
    if c.attribute("padding_mode", "zeros") == "border":
        moves = e("And", e("Greater", at, c.scalar(0)), e("Less", at, last))
        slope = e("Mul", slope, e("Cast", moves, to=c.code))
        at = e("Max", e("Min", at, last), c.scalar(0))
    near = e("Floor", at)
    rest = e("Sub", at, near)
    return _Axis(count, near, (e("Sub", one, rest), rest), slope)


def _pixel(c: Call, planes: str, down: _Axis, across: _Axis, row: int, column: int) -> tuple[str, str]:
    """Return for one of the pixels around each sample whether it is inside, as 0 or 1, and its numbers in the image."""
    e, zero = c.emit, c.scalar(0)
    inside, places = [], []
    for axis, ahead in ((down, row), (across, column)):
        last = e("Sub", e("Cast", axis.size, to=c.code), c.scalar(1))
        at = e("Add", axis.near, c.scalar(1)) if ahead else axis.near
        clipped = e("Max", e("Min", at, last), zero)
        inside.append(e("Equal", at, clipped))
        places.append(e("Cast", clipped, to=TensorProto.INT64))
    number = e("Add", e("Mul", places[0], across.size), places[1])
    return e("Cast", e("And", *inside), to=c.code), e("Add", planes, e("Unsqueeze", number, e.integers([1])))


def _planes(c: Call, down: _Axis, across: _Axis) -> str:
    """Return the number of the first pixel of each plane, `(batch, channels, 1)`."""
    e, one = c.emit, _integer(c, 1)
    lead = e("Shape", c.x, end=2)
    numbers = e("Range", _integer(c, 0), e("ReduceProd", lead, keepdims=0), one)
    starts = e("Mul", numbers, e("Mul", down.size, across.size))
    return e("Reshape", starts, e("Concat", lead, e.integers([1]), axis=0), allowzero=1)


def _move(c: Call, axis: _Axis, other: _Axis, sums: Sequence[tuple[str, str]]) -> str:
    """Return the gradient of coordinates along an axis, given those of pixels before and behind on both sides."""
    e = c.emit
    first, second = (e("Mul", e("Sub", b, a), share) for (a, b), share in zip(sums, other.shares, strict=True))
    return e("Mul", e("Add", first, second), axis.slope)


def _integer(c: Call, value: int) -> str:
    return c.emit.scalar(value, TensorProto.INT64)
