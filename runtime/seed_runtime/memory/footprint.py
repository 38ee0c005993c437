"""Memory that a session of this model needs, as the exporter measured it: section FOOTPRINT of a seed.

A session's memory is its peak above that of a process that has imported the backend's library:

    max(opening, mapped + peak at the input's size)

`opening` is the peak while the model is opened. `mapped` are the weights that stay mapped from the file:
all of them count, though which rows of an embedding are touched depends on the data. A peak holds the rest:
copies that prepacking made, activations, the inputs and outputs themselves, and the library's own pages.

Between measured sizes, a peak is bounded from above by two assumptions: it never falls when a dimension
grows, and on the way from one measured point to a larger one it is convex. Both hold for sums of tensor
sizes, which are polynomials of the dimensions without negative terms; the exporter's margin covers the rest.

Layout (SPEC.md, section FOOTPRINT), sizes of memory in units of 64 KiB, rounded up:

    varint  free dimensions, each: string input, varint axis
    varint  points, each: one varint size per free dimension
    varint  modes, each: string name, varint opening, varint mapped, one varint peak per point
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seed_runtime.backends.dimensions import Axis, Dims, Point, dims_at, dims_of, point_of
from seed_runtime.backends.tensors import Feeds
from seed_runtime.errors import FormatError, InputError
from seed_runtime.format.primitives import Cursor, string, varint
from seed_runtime.limits import RANK_MAX
from seed_runtime.skeletons import ValueInfo

UNIT: Final = 1 << 16
"""Memory is counted in units of this many bytes."""
UNITS_MAX: Final = 1 << 24
"""Largest amount of memory, in units: 1 TiB."""
FREE_DIMS_MAX: Final = 16
SIZE_MAX: Final = 1 << 31
"""Largest size of a free dimension."""
POINTS_MAX: Final = 16
MODES_MAX: Final = 8


@dataclass(frozen=True)
class ModeFootprint:
    """Memory of one mode, in units of 64 KiB."""

    name: str
    opening: int
    mapped: int
    peaks: tuple[int, ...]
    """Peak at each point, in the order of the footprint's points."""


@dataclass(frozen=True)
class Footprint:
    """Peaks of each mode at each point. A point gives every free dimension a size.

    Raises:
        ValueError: points or modes are equal, a size or count is beyond its limit, or a peak is smaller than that of
            a point which is nowhere larger.
    """

    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    modes: tuple[ModeFootprint, ...]

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise ValueError(f"not a footprint: {problem}")

    @classmethod
    def unpack(cls, cursor: Cursor) -> Footprint:
        """Read the payload of section FOOTPRINT, to its end.

        Raises:
            FormatError: it is anything that `pack` would not write.
        """
        axes = tuple(
            (cursor.string("input of a free dimension"), cursor.varint("axis", limit=RANK_MAX - 1))
            for _ in range(cursor.varint("number of free dimensions", limit=FREE_DIMS_MAX))
        )
        points = tuple(
            tuple(cursor.varint("size", limit=SIZE_MAX) for _ in axes)
            for _ in range(cursor.varint("number of points", limit=POINTS_MAX, least=1))
        )
        modes = tuple(
            ModeFootprint(
                cursor.string("mode"),
                cursor.varint("opening", limit=UNITS_MAX),
                cursor.varint("mapped", limit=UNITS_MAX),
                tuple(cursor.varint("peak", limit=UNITS_MAX) for _ in points),
            )
            for _ in range(cursor.varint("number of modes", limit=MODES_MAX, least=1))
        )
        cursor.end()
        try:
            return cls(axes, points, modes)
        except ValueError as error:
            raise FormatError(cursor.where, str(error)) from None

    def pack(self) -> bytes:
        """Return the payload of section FOOTPRINT."""
        out = [varint(len(self.axes))]
        out += [string(name) + varint(axis) for name, axis in self.axes]
        out.append(varint(len(self.points)))
        out += [varint(size) for point in self.points for size in point]
        out.append(varint(len(self.modes)))
        for mode in self.modes:
            out.append(string(mode.name))
            out += [varint(value) for value in (mode.opening, mode.mapped, *mode.peaks)]
        return b"".join(out)

    def check(self, inputs: Sequence[ValueInfo]) -> None:
        """Raise FormatError unless its free dimensions are among those of the skeleton's inputs without defaults."""
        ranks = {value.name: RANK_MAX if value.dims is None else len(value.dims) for value in inputs}
        for name, axis in self.axes:
            if axis >= ranks.get(name, 0):
                raise FormatError("header, FOOTPRINT", f"no input of the model is {name!r} with an axis {axis}")

    def dims(self, feeds: Feeds) -> Dims:
        """Return the sizes of the free dimensions in these feeds, for `predict`. Needs no open model."""
        return dims_of(self.axes, feeds)

    def smallest(self) -> Dims:
        """Return the sizes of the smallest point that was measured."""
        return dims_at(self.axes, min(self.points))

    def covers(self, dims: Mapping[str, int]) -> bool:
        """Return whether a measured point is at least this large in every dimension."""
        wanted = point_of(self.axes, dims)
        return any(_fits(wanted, point) for point in self.points)

    def predict(self, mode: str, dims: Mapping[str, int]) -> int:
        """Return an upper bound of a session's memory above the process that imported the library [B].

        Args:
            mode: name of a measured mode; KeyError for another one.
            dims: sizes of the free dimensions, by their keys.

        Raises:
            InputError: a dimension is beyond what was measured.
        """
        row = {entry.name: entry for entry in self.modes}[mode]
        wanted = point_of(self.axes, dims)
        bounds = [
            _between(wanted, low, high, row.peaks[i], row.peaks[j])
            for i, low in enumerate(self.points)
            for j, high in enumerate(self.points)
            if _fits(low, high)
        ]
        found = [bound for bound in bounds if bound is not None]
        if not found:
            raise InputError(
                f"the input has {self._text(wanted)}, and memory was measured up to {self._largest(wanted)}; "
                f"{self._advice(wanted)}, or run without --max-memory"
            )
        return max(row.opening, row.mapped + min(found)) * UNIT

    def _advice(self, wanted: Sequence[int]) -> str:
        """Return what makes an input small enough: smaller batches where nothing else is too large."""
        batches = [
            min(size for size, (_, axis) in zip(point, self.axes, strict=True) if axis == 0)
            for point in self.points
            if any(axis == 0 for _, axis in self.axes)
            and all(axis == 0 or want <= size for want, size, (_, axis) in zip(wanted, point, self.axes, strict=True))
        ]
        if not batches or max(batches) < 1:
            return "use a smaller input, export the model again with inputs as large as this one (--calib)"
        return (
            f"give batches of at most {max(batches)} (in an array with one axis more than the model's input the first "
            f"axis counts calls: [n, {max(batches)}, ...])"
        )

    def _text(self, point: Sequence[int]) -> str:
        return ", ".join(
            f"{size} at axis {axis} of {name!r}" for (name, axis), size in zip(self.axes, point, strict=True)
        )

    def _largest(self, wanted: Sequence[int]) -> str:
        """Return the point that is as large as wanted in most dimensions, the largest of those."""

        def admits(point: Sequence[int]) -> tuple[int, Sequence[int]]:
            return sum(w <= p for w, p in zip(wanted, point, strict=True)), point

        return self._text(max(self.points, key=admits))


def _between(wanted: Sequence[int], low: Sequence[int], high: Sequence[int], at_low: int, at_high: int) -> int | None:
    """Return the bound at the first place on the line from `low` to `high` that is nowhere below `wanted`."""
    if not _fits(wanted, high):
        return None
    # As a fraction part / whole, so that everything stays in integers.
    part, whole = 0, 1
    for want, start, end in zip(wanted, low, high, strict=True):
        if want > start and (want - start) * whole > part * (end - start):
            part, whole = want - start, end - start
    return at_low + -(-(at_high - at_low) * part // whole)


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    return all(a <= b for a, b in zip(small, large, strict=True))


def _problem(footprint: Footprint) -> str | None:
    """Return what breaks a promise of `Footprint`, which reader and writer share; None for nothing."""
    axes, points, modes = footprint.axes, footprint.points, footprint.modes
    if len(axes) > FREE_DIMS_MAX or not 1 <= len(points) <= POINTS_MAX or not 1 <= len(modes) <= MODES_MAX:
        return f"it can't have {len(axes)} free dimensions, {len(points)} points and {len(modes)} modes"
    if len(set(axes)) < len(axes) or len(set(points)) < len(points):
        return "a free dimension or a point stands twice"
    if len({mode.name for mode in modes}) < len(modes):
        return "a mode stands twice"
    if any(len(point) != len(axes) or not all(0 <= size <= SIZE_MAX for size in point) for point in points):
        return "a point doesn't give each free dimension a size"
    for mode in modes:
        values = (mode.opening, mode.mapped, *mode.peaks)
        if len(mode.peaks) != len(points) or not all(0 <= value <= UNITS_MAX for value in values):
            return f"mode {mode.name!r} has a wrong number of peaks, or one beyond the limit"
        for i, low in enumerate(points):
            for j, high in enumerate(points):
                if _fits(low, high) and mode.peaks[i] > mode.peaks[j]:
                    return f"mode {mode.name!r} has a peak that falls when the input grows"
    return None
