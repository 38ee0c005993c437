"""Shortens footprints of small models: fewer sizes and modes, and never less memory than was measured.

In a seed of a few kilobytes a footprint may weigh more than the weights of a layer, while the memory of such a model
is the library's own at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from seed_exporter.evaluate import footprint
from seed_runtime import backends
from seed_runtime.backends import TensorSpec, free_axes
from seed_runtime.backends.dimensions import Point
from seed_runtime.memory.footprint import Footprint

_POINTS: Final = 3
"""Most points that a thin footprint usually has: the smallest, and the largest with and without a large batch."""
_POINT_BYTES: Final = 2
"""Size of one packed dimension of a point [B]."""
_NUMBER_BYTES: Final = 2
"""Size of a packed peak of a small model, up to 1 GiB [B]."""


def thinned(measured: Footprint, size: int) -> Footprint:
    """Return a footprint of at most `size` packed bytes, or the shortest that there is.

    What it predicts is never lower: peaks are bounded between points that are further apart, and the modes that are
    left out are the slower ones.
    """
    if len(measured.pack()) <= size:
        return measured
    corners = _with_points(measured, _corners(measured.points))
    if len(corners.pack()) <= size:
        return corners
    return replace(corners, modes=corners.modes[:1])


def thinned_size_max(inputs: Sequence[TensorSpec], size: int, backend: str = "onnxruntime") -> int:
    """Return the most bytes that `thinned` leaves of a small model's footprint, before anything is measured [B]."""
    axes = free_axes(inputs)
    names = sum(len(name.encode()) + 2 for name, _ in axes)
    mode = len(backends.get(backend).modes[0]) + 1 + _NUMBER_BYTES * (2 + _POINTS)
    shortest = 3 + names + _POINTS * _POINT_BYTES * len(axes) + mode
    return min(footprint.packed_size_max(inputs, backend), max(size, shortest))


def _corners(points: Sequence[Point]) -> list[int]:
    """Return the places of the smallest point and of those that no other point exceeds in every dimension."""
    largest = [
        place
        for place, point in enumerate(points)
        if not any(other != point and all(a <= b for a, b in zip(point, other, strict=True)) for other in points)
    ]
    return sorted({points.index(min(points)), *largest})


def _with_points(measured: Footprint, places: Sequence[int]) -> Footprint:
    return replace(
        measured,
        points=tuple(measured.points[place] for place in places),
        modes=tuple(replace(mode, peaks=tuple(mode.peaks[place] for place in places)) for mode in measured.modes),
    )
