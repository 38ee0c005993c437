"""Free dimensions of a model's inputs: which they are, and which is the batch, height, width or sequence.

A dimension that has a name is one dimension wherever the name stands; one without a name is its own. A name that is a
sum of others ("past_sequence_length + 1") gets the size that they make, unless inputs are known that say otherwise.
`seed_runtime.backends.free_axes` and `dims_of` are the device's half of this.

Two rules say which dimension is the batch: `batch_dims` for generated inputs, `roles` for the sizes at which memory is
measured. They differ for some axes, such as the only axis of a vector, which is no batch to the first and one to the
second. Seeds depend on both (golden sample, footprint), so neither can replace the other without changing seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final, Literal

from seed_runtime.backends import Dims, TensorSpec, free_axes, key_of
from seed_runtime.backends.dimension_names import Expression, expression
from seed_runtime.backends.dimensions import Axis

FreeDim = str | Axis
"""A free dimension: its name, or input and axis where it has none."""
Role = Literal["batch", "height", "width", "sequence"]
"""Role of a free dimension: the size of a batch, the height or width of a picture, or the length of a sequence."""

_GROUPS_MAX: Final = 8
_CHANNELS_MAX: Final = 4
"""Most channels of a picture whose channels stand last."""


def free_dim(spec: TensorSpec, axis: int) -> FreeDim:
    """Return the free dimension that stands at this axis of an input."""
    name = (spec.shape or ())[axis]
    return name if isinstance(name, str) else (spec.name, axis)


def all_free_dims(specs: Sequence[TensorSpec]) -> list[FreeDim]:
    """Return all free dimensions in the model's order, each as often as it stands in a shape."""
    return [
        free_dim(spec, axis)
        for spec in specs
        for axis, size in enumerate(spec.shape or ())
        if not isinstance(size, int)
    ]


def sums(specs: Sequence[TensorSpec]) -> dict[FreeDim, Expression]:
    """Return the dimensions whose name is a sum of others."""
    named = {dim: expression(dim) for dim in all_free_dims(specs) if isinstance(dim, str)}
    return {dim: found for dim, found in named.items() if found is not None}


def terms(specs: Sequence[TensorSpec]) -> list[FreeDim]:
    """Return the free dimensions that aren't sums, each once, and the names that stand in sums alone."""
    found = sums(specs)
    plain = [dim for dim in all_free_dims(specs) if dim not in found]
    return list(dict.fromkeys([*plain, *(name for each in found.values() for name in each.names)]))


def with_sums(specs: Sequence[TensorSpec], sizes: Mapping[FreeDim, int]) -> dict[FreeDim, int]:
    """Add the sizes of sums that have none to the sizes of their terms; a sum below 0 becomes 0."""
    named = {dim: size for dim, size in sizes.items() if isinstance(dim, str)}
    missing = {dim: found for dim, found in sums(specs).items() if dim not in sizes}
    return {dim: max(0, found.value(named)) for dim, found in missing.items()} | dict(sizes)


def concrete_shape(spec: TensorSpec, sizes: Mapping[FreeDim, int]) -> tuple[int, ...]:
    """Return the input's shape with these sizes of its free dimensions."""
    return tuple(
        size if isinstance(size, int) else sizes[free_dim(spec, axis)] for axis, size in enumerate(spec.shape or ())
    )


def sizes_from_dims(inputs: Sequence[TensorSpec], dims: Mapping[str, int], default: int = 1) -> dict[FreeDim, int]:
    """Turn sizes under keys like "input_ids:1" into sizes by dimension; `default` for those not given."""
    shapes = {spec.name: spec for spec in inputs}
    return {free_dim(shapes[name], axis): dims.get(key_of((name, axis)), default) for name, axis in free_axes(inputs)}


def batch_dims(specs: Sequence[TensorSpec]) -> set[FreeDim]:
    """Return the dimensions that generated inputs take for a batch.

    These are the ones with "batch" in their name or named N; if there are none, the first axis of every input with
    more than one axis.
    """
    named: set[FreeDim] = {
        dim for dim in terms(specs) if isinstance(dim, str) and ("batch" in dim.lower() or dim in ("N", "n"))
    }
    if named:
        return named
    plain = set(terms(specs))
    return {
        free_dim(spec, 0)
        for spec in specs
        if spec.shape and len(spec.shape) > 1 and not isinstance(spec.shape[0], int) and free_dim(spec, 0) in plain
    }


def sizes_to_try(specs: Sequence[TensorSpec], sides: Sequence[int]) -> Iterator[dict[FreeDim, int]]:
    """Yield sizes of the free dimensions: 1 for a batch, and each of `sides` for all others together.

    Only one choice is made where there are no others. Where there are several, more follow, for models whose
    dimensions depend on each other although their names don't say so: one of them twice the first side, as the sum of
    two others; one of them 1, as the new tokens beside a past; one of them 0, as a past that is empty.
    """
    dims = terms(specs)
    batch = batch_dims(specs)
    for side in sides:
        yield with_sums(specs, {dim: 1 if dim in batch else side for dim in dims})
        if batch == set(dims):
            return
    usual: dict[FreeDim, int] = {dim: 1 if dim in batch else sides[0] for dim in dims}
    groups = _groups(specs, batch)
    if len(groups) < 2:
        return
    totals = sorted(groups, key=lambda group: not _says_total(group[0]))
    yield from (with_sums(specs, usual | dict.fromkeys(group, 2 * sides[0])) for group in totals)
    yield from (with_sums(specs, usual | dict.fromkeys(group, 1)) for group in groups)
    for group in groups:
        empty = usual | dict.fromkeys(group, 0)
        yield with_sums(specs, empty)
        # As long as the others, whatever the sum says: "past + 1" of decoders that take any number of new tokens.
        yield dict.fromkeys(sums(specs), sides[0]) | empty


def _groups(specs: Sequence[TensorSpec], batch: Set[FreeDim]) -> list[list[FreeDim]]:
    """Return the first _GROUPS_MAX groups of dimensions other than the batch, which get one size each.

    Those without a name are together where they stand at the same place of inputs that differ in a number alone: the
    pasts of all layers.
    """
    groups: dict[object, list[FreeDim]] = {}
    for spec in specs:
        for axis, size in enumerate(spec.shape or ()):
            dim = free_dim(spec, axis) if not isinstance(size, int) else None
            if dim is not None and dim not in batch:
                group = groups.setdefault(size or (re.sub(r"\d+", "", spec.name), axis), [])
                group += [dim] if dim not in group else []
    return list(groups.values())[:_GROUPS_MAX]


def _says_total(dim: FreeDim) -> bool:
    return isinstance(dim, str) and (expression(dim) is not None or "total" in dim.lower())


def roles(inputs: Sequence[TensorSpec]) -> dict[str, Role]:
    """Return what each free dimension counts, under keys like "input_ids:1" in the model's order.

    The first axis is taken for the batch, two free axes of a picture for its height and width, anything else for a
    sequence; a name that says "batch", "seq" or "len" decides. A sum has no role of its own.
    """
    shapes = {spec.name: spec for spec in inputs}
    computed = sums(inputs)
    return {
        key_of((name, axis)): _role(shapes[name], axis)
        for name, axis in free_axes(inputs)
        if free_dim(shapes[name], axis) not in computed
    }


def with_role(dims: Mapping[str, Role], *wanted: Role) -> list[str]:
    """Return the keys of the dimensions that have one of these roles, in order."""
    return [key for key, role in dims.items() if role in wanted]


def scale(dims: Mapping[str, int], keys: Sequence[str], factor: float) -> Dims:
    """Multiply the sizes of these dimensions by `factor`, down to 1 at least; the others stay, and so does 0."""
    return {key: max(min(1, size), int(size * factor)) if key in keys else size for key, size in dims.items()}


def _role(spec: TensorSpec, axis: int) -> Role:
    shape = spec.shape or ()
    name = str(shape[axis] or "").lower()
    if "seq" in name or "len" in name:
        return "sequence"
    if axis == 0 or "batch" in name:
        return "batch"
    if len(shape) == 4:
        last = shape[3]
        channels_last = isinstance(last, int) and last <= _CHANNELS_MAX
        height = 1 if channels_last else 2
        if axis in (height, height + 1):
            return "height" if axis == height else "width"
    return "sequence"
