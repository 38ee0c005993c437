"""Choose the sizes of free dimensions at which a model's memory is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from seed_exporter.evaluate import free_dims
from seed_exporter.evaluate.free_dims import Role
from seed_runtime.backends import Dims, Feeds, TensorSpec

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
"""Factors by which the sizes of a known input are multiplied."""


def size_families(inputs: Sequence[TensorSpec], sample: Mapping[str, int] | None = None) -> list[list[Dims]]:
    """Return lists of sizes to measure at, of which the first where enough points run is the one to use.

    Sizes grow together, and the batch on its own at two of them.

    Args:
        inputs: the model's inputs.
        sample: sizes on which the model is known to run, under keys like "input_ids:1"; they are scaled.
    """
    roles = free_dims.roles(inputs)
    batch = free_dims.with_role(roles, "batch")
    rest = free_dims.with_role(roles, "height", "width", "sequence")
    if not roles:
        return [[{}]]
    if not rest:
        return [[dict.fromkeys(batch, size) for size in _BATCHES]]
    if sample is not None:
        families = [[free_dims.scale(sample, keys, factor) for factor in _SAMPLE_FACTORS] for keys in (rest, rest[-1:])]
    else:
        squares = zip(_SEQUENCES, _IMAGES, strict=True)
        families = [[_dims_of_roles(rest, roles, sequence, side, side) for sequence, side in squares]]
        if "height" in roles.values():
            for height in _STRIP_HEIGHTS:
                families.append([_dims_of_roles(rest, roles, 64, height, width) for width in _STRIP_WIDTHS])
    return [_with_batches(family, batch) for family in families]


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


def _with_batches(family: list[Dims], batch: Sequence[str]) -> list[Dims]:
    """Give each point its own batch or 1, and the second and third a large batch as well; drop repeated points."""
    points = [dict.fromkeys(batch, 1) | dims for dims in family]
    if batch:
        points += [dims | dict.fromkeys(batch, _LARGE_BATCH) for dims in points[1:3]]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(sorted(point.items())) for point in points)]
