"""Choose the sizes of free dimensions at which a model's memory is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from seed_exporter.evaluate import free_dims
from seed_exporter.evaluate.free_dims import FreeDim, Role
from seed_runtime.backends import Dims, Feeds, TensorSpec, free_axes, key_of

_BATCHES: Final = (1, 2, 4, 8)
"""Sizes of the batch where nothing else is free."""
_LARGE_BATCH: Final = 4
"""Size of the batch at two more points where other dimensions are free as well."""
_SEQUENCES: Final = (16, 64, 256, 512)
"""Lengths of sequences."""
_IMAGES: Final = (64, 128, 224, 320)
"""Heights and widths of pictures [pixels]."""
# Readers of text lines: the height is fixed by the model although its type says free.
_STRIP_HEIGHTS: Final = (48, 32, 64)
"""Heights of text lines [pixels]."""
_STRIP_WIDTHS: Final = (64, 160, 320, 640)
"""Widths of text lines [pixels]."""
_SAMPLE_FACTORS: Final = (0.25, 0.5, 1, 2)
"""Factors by which the sizes of a user's input are multiplied."""
_GROWTH: Final = (1, 4, 16, 32)
"""Factors by which the sizes of a generated input are multiplied, which is as small as the model takes it."""


def size_families(
    inputs: Sequence[TensorSpec],
    sample: Mapping[str, int] | None = None,
    generated: Mapping[str, int] | None = None,
    described: Sequence[Mapping[str, int]] = (),
) -> list[list[Dims]]:
    """Return lists of sizes to measure at, of which the first where enough points run is the one to use.

    Sizes grow together, and the batch on its own at two of them.

    Args:
        inputs: the model's inputs.
        sample: sizes that the user gives the model, under keys like "input_ids:1"; parts and multiples of them alone
            are tried.
        generated: sizes on which the model is known to run, in case that it doesn't at the usual ones.
        described: sizes that the model's processing makes, the largest last, which are tried before the usual ones; a
            dimension that they don't have, and no batch is, makes them useless.
    """
    roles = free_dims.roles(inputs)
    batch = free_dims.with_role(roles, "batch")
    rest = free_dims.with_role(roles, "height", "width", "sequence")
    terms = _terms_in_sums_alone(inputs)
    if not rest and not terms:
        return [[_with_sums(inputs, dict.fromkeys(batch, size)) for size in (_BATCHES if batch else (1,))]]
    families: list[list[Dims]] = []
    if sample is not None:
        known = _without_true_sums(inputs, sample)
        growing = [key for key in known if key not in batch]
        families = [
            [free_dims.scale(known, keys, factor) for factor in _SAMPLE_FACTORS] for keys in (growing, growing[-1:])
        ]
    else:
        squares = zip(_SEQUENCES, _IMAGES, strict=True)
        families = [[_dims_of_roles(rest, roles, sequence, side, side) for sequence, side in squares]]
        if "height" in roles.values():
            for height in _STRIP_HEIGHTS:
                families.append([_dims_of_roles(rest, roles, 64, height, width) for width in _STRIP_WIDTHS])
        families = [
            [dims | dict.fromkeys(terms, length) for dims, length in zip(family, _SEQUENCES, strict=True)]
            for family in families
        ]
    if sample is None and described and described[-1].keys() == {*rest, *terms}:
        families.insert(0, [dict(sizes) for sizes in described])
    if sample is None and generated is not None:
        known = _without_true_sums(inputs, generated)
        growing = [key for key, size in known.items() if key not in batch and size > 1]
        families.append([free_dims.scale(known, growing, factor) for factor in _GROWTH])
    return [_with_batches(inputs, family, batch) for family in families]


def ones_at(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> Feeds:
    """Make feeds of ones, with these sizes of the free dimensions and 1 for those not given.

    Ones are valid as tokens and as pixels.
    """
    sizes = free_dims.sizes_from_dims(inputs, dims)
    return {
        spec.name: np.ones(free_dims.concrete_shape(spec, sizes), dtype="U1" if spec.dtype == "string" else spec.dtype)
        for spec in inputs
    }


def _dims_of_roles(keys: Sequence[str], roles: Mapping[str, Role], sequence: int, height: int, width: int) -> Dims:
    sizes: dict[Role, int] = {"sequence": sequence, "height": height, "width": width}
    return {key: sizes[roles[key]] for key in keys}


def _with_batches(inputs: Sequence[TensorSpec], family: list[Dims], batch: Sequence[str]) -> list[Dims]:
    """Give each point its own batch or 1, and the second and third a large batch as well; drop repeated points."""
    points = [dict.fromkeys(batch, 1) | dims for dims in family]
    if batch:
        points += [dims | dict.fromkeys(batch, _LARGE_BATCH) for dims in points[1:3]]
    points = [_with_sums(inputs, dims) for dims in points]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(sorted(point.items())) for point in points)]


def _terms_in_sums_alone(inputs: Sequence[TensorSpec]) -> list[str]:
    """Return the names in sums that no axis has."""
    dims = set(free_dims.all_free_dims(inputs))
    return [dim for dim in free_dims.terms(inputs) if isinstance(dim, str) and dim not in dims]


def _dims_by_key(inputs: Sequence[TensorSpec]) -> dict[str, FreeDim]:
    shapes = {spec.name: spec for spec in inputs}
    return {key_of((name, axis)): free_dims.free_dim(shapes[name], axis) for name, axis in free_axes(inputs)}


def _with_sums(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> Dims:
    """Add the sizes of sums that have none; the terms that no axis has stand in `dims` by their names."""
    by_key = _dims_by_key(inputs)
    sizes = free_dims.with_sums(inputs, {by_key.get(key, key): size for key, size in dims.items()})
    return {key: sizes[dim] for key, dim in by_key.items()}


def _without_true_sums(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> Dims:
    """Leave out the sums that these sizes fulfil; the others mean nothing, and grow like any dimension."""
    by_key = _dims_by_key(inputs)
    sizes = {dim: dims[key] for key, dim in by_key.items() if isinstance(dim, str)}
    found = free_dims.sums(inputs)
    true = {
        dim for dim, each in found.items() if sizes.keys() >= set(each.names) and each.value(sizes) == sizes[str(dim)]
    }
    return {key: size for key, size in dims.items() if by_key[key] not in true}
