"""Free dimensions of a model's inputs: which they are, and which is the batch, height, width or sequence.

A dimension that has a name is one dimension wherever the name stands; one without a name is its own.
`seed_runtime.backends.free_axes` and `dims_of` are the device's half of this.

Two rules say which dimension is the batch: `batch_dims` for generated inputs, `roles` for the sizes at which memory is
measured. They differ for some axes, such as the only axis of a vector, which is no batch to the first and one to the
second. Seeds depend on both (golden sample, footprint), so neither can replace the other without changing seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from seed_runtime.backends import Dims, TensorSpec, free_axes, key_of
from seed_runtime.backends.dimensions import Axis

FreeDim = str | Axis
"""A free dimension: its name, or input and axis where it has none."""
Role = Literal["batch", "height", "width", "sequence"]
"""Role of a free dimension: the size of a batch, the height or width of a picture, or the length of a sequence."""

_CHANNELS_MAX: Final = 4
"""Most channels of a picture whose channels stand last."""


def free_dim(spec: TensorSpec, axis: int) -> FreeDim:
    """Return the free dimension that stands at this axis of an input."""
    name = spec.shape[axis]
    return name if isinstance(name, str) else (spec.name, axis)


def all_free_dims(specs: Sequence[TensorSpec]) -> list[FreeDim]:
    """Return all free dimensions in the model's order, each as often as it stands in a shape."""
    return [free_dim(spec, axis) for spec in specs for axis, size in enumerate(spec.shape) if not isinstance(size, int)]


def concrete_shape(spec: TensorSpec, sizes: Mapping[FreeDim, int]) -> tuple[int, ...]:
    """Return the input's shape with these sizes of its free dimensions."""
    return tuple(size if isinstance(size, int) else sizes[free_dim(spec, axis)] for axis, size in enumerate(spec.shape))


def sizes_from_dims(inputs: Sequence[TensorSpec], dims: Mapping[str, int], default: int = 1) -> dict[FreeDim, int]:
    """Turn sizes under keys like "input_ids:1" into sizes by dimension; `default` for those not given."""
    shapes = {spec.name: spec for spec in inputs}
    return {free_dim(shapes[name], axis): dims.get(key_of((name, axis))) or default for name, axis in free_axes(inputs)}


def batch_dims(specs: Sequence[TensorSpec]) -> set[FreeDim]:
    """Return the dimensions that generated inputs take for a batch.

    These are the ones with "batch" in their name or named N; if there are none, the first axis of every input with
    more than one axis.
    """
    named: set[FreeDim] = {
        dim for dim in all_free_dims(specs) if isinstance(dim, str) and ("batch" in dim.lower() or dim in ("N", "n"))
    }
    if named:
        return named
    return {free_dim(spec, 0) for spec in specs if len(spec.shape) > 1 and not isinstance(spec.shape[0], int)}


def sizes_to_try(specs: Sequence[TensorSpec], sides: Sequence[int]) -> Iterator[dict[FreeDim, int]]:
    """Yield sizes of the free dimensions: 1 for a batch, and each of `sides` for all others together.

    Only one choice is made where there are no others.
    """
    dims = all_free_dims(specs)
    batch = batch_dims(specs)
    for side in sides:
        yield {dim: 1 if dim in batch else side for dim in dims}
        if batch == set(dims):
            return


def roles(inputs: Sequence[TensorSpec]) -> dict[str, Role]:
    """Return what each free dimension counts, under keys like "input_ids:1" in the model's order.

    The first axis is taken for the batch, two free axes of a picture for its height and width, anything else for a
    sequence; a name that says "batch", "seq" or "len" decides.
    """
    shapes = {spec.name: spec for spec in inputs}
    return {key_of((name, axis)): _role(shapes[name], axis) for name, axis in free_axes(inputs)}


def with_role(dims: Mapping[str, Role], *wanted: Role) -> list[str]:
    """Return the keys of the dimensions that have one of these roles, in order."""
    return [key for key, role in dims.items() if role in wanted]


def scale(dims: Mapping[str, int], keys: Sequence[str], factor: float) -> Dims:
    """Multiply the sizes of these dimensions by `factor`, down to 1 at least; the others stay."""
    return {key: max(1, int(size * factor)) if key in keys else size for key, size in dims.items()}


def _role(spec: TensorSpec, axis: int) -> Role:
    name = str(spec.shape[axis] or "").lower()
    if "seq" in name or "len" in name:
        return "sequence"
    if axis == 0 or "batch" in name:
        return "batch"
    if len(spec.shape) == 4:
        last = spec.shape[3]
        channels_last = isinstance(last, int) and last <= _CHANNELS_MAX
        height = 1 if channels_last else 2
        if axis in (height, height + 1):
            return "height" if axis == height else "width"
    return "sequence"
