"""Free dimensions of a model's inputs: which there are, and the sizes that inputs give them.

An axis is `(input, axis)`, such as `("input_ids", 1)`; sizes stand under keys such as "input_ids:1". A point is the
same sizes as a tuple in the order of the axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seed_runtime.backends.dimension_names import expression
from seed_runtime.backends.tensors import Feeds, TensorSpec
from seed_runtime.errors import InputError

Axis = tuple[str, int]
Dims = dict[str, int]
Point = tuple[int, ...]


def key_of(axis: Axis) -> str:
    """Return the key of an axis in `Dims`."""
    return f"{axis[0]}:{axis[1]}"


def free_axes(inputs: Sequence[TensorSpec]) -> tuple[Axis, ...]:
    """Return input and axis where each free dimension is seen first, in the model's order."""
    seen: set[str] = set()
    axes = []
    for spec in inputs:
        for axis, size in enumerate(spec.shape or ()):
            if isinstance(size, int) or size in seen:
                continue
            if size is not None:
                seen.add(size)
            axes.append((spec.name, axis))
    return tuple(axes)


def dims_of(axes: Sequence[Axis], feeds: Feeds) -> Dims:
    """Return the sizes that these feeds give to free dimensions. Needs no open model.

    Raises:
        InputError: an input or its axis is missing.
    """
    dims: Dims = {}
    for name, axis in axes:
        if name not in feeds:
            raise InputError(f"input {name!r} is missing; the model needs it")
        shape = np.shape(feeds[name])
        if axis >= len(shape):
            raise InputError(f"input {name!r} needs more than {axis} axes, its shape is {list(shape)}")
        dims[key_of((name, axis))] = shape[axis]
    return dims


def dims_at(axes: Sequence[Axis], point: Sequence[int]) -> Dims:
    """Return the sizes of a point by their keys."""
    return {key_of(axis): size for axis, size in zip(axes, point, strict=True)}


def point_of(axes: Sequence[Axis], dims: Mapping[str, int]) -> Point:
    """Return the point of sizes that stand under keys; KeyError where one is missing."""
    return tuple(dims[key_of(axis)] for axis in axes)


def broken_sums(inputs: Sequence[TensorSpec], feeds: Feeds) -> list[str]:
    """Return a line for each dimension whose name is a sum that these feeds, which fit the inputs, don't fulfil."""
    sizes: dict[str, int] = {}
    places: dict[str, str] = {}
    for spec in inputs:
        for axis, (name, size) in enumerate(zip(spec.shape or (), feeds[spec.name].shape, strict=False)):
            if isinstance(name, str) and name not in sizes:
                sizes[name], places[name] = size, f"axis {axis} of {spec.name!r}"
    lines = []
    for name, place in places.items():
        found = expression(name)
        if found and sizes.keys() >= set(found.names) and found.value(sizes) != sizes[name]:
            lines.append(f"{name!r} at {place} is {sizes[name]}, the sizes given make it {found.value(sizes)}")
    return lines
