"""Measure the memory of an assembled model's sessions, for the section FOOTPRINT of its seed.

Each mode runs at each size in a fresh process. That also bounds a session that sees many sizes: after a run its
backend releases what the run has allocated (docs/adr/0003-onnx-runtime-memory.md). One process for many sizes would be
quicker, but what a run needs is up to a sixth more in a new session than in one that has run others.

Two exports may differ here. What a process holds depends on when its threads run, so that a peak near the edge of a
unit of 64 KiB falls on either side of it; coarser units would make that rarer, and cost memory in every plan, but some
peak would still be near an edge. A busy machine also measures fewer points in TIME_S.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import seed_runtime
from seed_exporter.evaluate import footprint_growth
from seed_exporter.evaluate.footprint_sizes import ones_at, size_families
from seed_runtime import backends
from seed_runtime.backends import Dims, Feeds, TensorSpec, dims_at, dims_of, free_axes, point_of
from seed_runtime.memory import plan
from seed_runtime.memory.footprint import FREE_DIMS_MAX, POINTS_MAX, UNIT, Footprint, ModeFootprint
from seed_runtime.system.scratch import scratch_folder

MARGIN_BYTES: Final = 1 << 20
"""Constant part of the margin on each peak [B]."""
MARGIN_DIVISOR: Final = 10
"""The margin is also a tenth of what isn't mapped.

Of four models on x86-64, sessions that saw 40 inputs of random sizes peaked at up to 1.06 times the bound without a
margin; the rest is for other processors and library versions.
"""
POINTS_WANTED: Final = 3
"""Points that are measured however long they take, and that make a family of sizes good enough."""
TIME_S: Final = 20
"""Time after which no further point is begun beyond POINTS_WANTED [s]: a large model's range is smaller then."""
_FIRST_SHARE: Final = 1 / 3
"""Share of that time in which points are begun in the first mode."""
_TIMEOUT_S: Final = 120
"""Longest time that one measuring process may take [s]."""
_NUMBER_BYTES: Final = 3
"""Size of a packed peak, which is enough for 128 GiB [B]."""


@dataclass(frozen=True)
class _Measured:
    """One session's memory [B]: peak while opening, mapped weights, and peak while running beside them."""

    opening: int
    mapped: int
    peak: int


def measure(
    folder: Path,
    points: Sequence[Mapping[str, int]] | None = None,
    feeds_at: Callable[[Dims], Feeds] | None = None,
    *,
    inputs: Sequence[TensorSpec] | None = None,
    sample: Feeds | None = None,
    generated: Feeds | None = None,
    described: Sequence[Dims] = (),
    backend: str = "onnxruntime",
) -> Footprint | None:
    """Run every mode at every point, in child processes, and record the peaks with a margin.

    Args:
        folder: an assembled model, as the device will have it.
        points: sizes of the free dimensions ("input_ids:1" is axis 1 of input_ids), in any order, at most
            POINTS_MAX; None for `size_families`. A point on which the model fails is dropped.
        feeds_at: makes the feeds of a point; None for ones, which are valid as tokens and as pixels.
        inputs: the model's inputs; None to open it and see.
        sample: what the user gives the model, where no points are given.
        generated: feeds on which the model is known to run, in case that it doesn't at the usual sizes.
        described: sizes that the model's processing makes, of which the last is measured however long it takes.
        backend: the backend whose modes are measured.

    Returns:
        The footprint, or None where nothing can be measured: anywhere but on Linux, where every point fails, or
        where an input may have any shape.
    """
    inputs = _inputs(folder, backend) if inputs is None else inputs
    axes = free_axes(inputs)
    if len(axes) > FREE_DIMS_MAX or any(spec.shape is None for spec in inputs):
        return None
    used, known = (None if feeds is None else dims_of(axes, feeds) for feeds in (sample, generated))
    if used is not None and not all(used.values()):
        # A size of 0 is that of a first call, whose outputs are inputs of the next one.
        used = None
    families = [list(points)] if points is not None else size_families(inputs, used, known, described)
    make = feeds_at or (lambda dims: ones_at(inputs, dims))
    best: Footprint | None = None
    for family in families:
        chosen = [dict(dims) for dims in sorted(family, key=_size_order)][:POINTS_MAX]
        growth = footprint_growth.plan_growth(inputs, chosen) if points is None else None
        largest = next((number for number, dims in enumerate(chosen) if _is_described(dims, described)), None)
        found = _measure_family(folder, backend, axes, chosen, growth, make, largest)
        if found is not None and (best is None or len(found.points) > len(best.points)):
            best = found
        if best is not None and len(best.points) >= min(POINTS_WANTED, len(chosen)):
            break
    return best


def packed_size_max(inputs: Sequence[TensorSpec], backend: str = "onnxruntime") -> int:
    """Return the most bytes that the section FOOTPRINT can take, before anything is measured [B]."""
    axes = free_axes(inputs)
    if len(axes) > FREE_DIMS_MAX or any(spec.shape is None for spec in inputs):
        return 0
    points = max(len(family) for family in size_families(inputs))
    names = sum(len(name.encode()) + 2 for name, _ in axes)
    modes = sum(len(mode) + 1 + _NUMBER_BYTES * (2 + points) for mode in backends.get(backend).modes)
    return 3 + names + 2 * points * len(axes) + modes


def _measure_family(
    folder: Path,
    backend: str,
    axes: tuple[tuple[str, int], ...],
    points: Sequence[Dims],
    growth: footprint_growth.Plan | None,
    feeds_at: Callable[[Dims], Feeds],
    largest: int | None = None,
) -> Footprint | None:
    """Measure at these points until time is up, and at `largest` in any case; None where the model runs at none.

    With a plan of its growth, the last point is computed rather than measured, and modes other than the first are
    measured at fewer points.
    """
    first, *others = backends.get(backend).modes
    last = len(points) - 1
    wanted = [*points, growth.probe] if growth is not None and growth.probe is not None else list(points)
    order = sorted(range(len(wanted)), key=lambda number: _size_order(wanted[number]))
    with scratch_folder() as temporary, ThreadPoolExecutor(2) as pool:
        files = [temporary / f"{number}.npz" for number in range(len(wanted))]
        for file, dims in zip(files, wanted, strict=True):
            np.savez(file, allow_pickle=False, **feeds_at(dims))

        found: dict[str, dict[int, _Measured]] = {mode: {} for mode in (first, *others)}

        def run(mode: str, number: int, end: float) -> None:
            # A point that is there for another's sake alone is no point of the footprint.
            is_wanted = number <= last and sum(each <= last for each in found[mode]) < POINTS_WANTED
            if is_wanted or number == largest or time.monotonic() < end:
                measured = _run_child(backend, mode, folder, files[number])
                if measured is not None:
                    found[mode][number] = measured

        def run_all(tasks: Sequence[tuple[str, int]], end: float) -> None:
            deque(pool.map(lambda task: run(task[0], task[1], end), tasks), maxlen=0)

        # One mode alone first: what it can't run, the others needn't try.
        begun = time.monotonic()
        tasks = [(first, number) for number in order if growth is None or number != last]
        run_all(tasks[:1], begun)
        if not found[first]:
            run_all(tasks[-1:], begun)
            if not found[first]:
                return None
        run_all([task for task in tasks[1:] if task[1] not in found[first]], begun + TIME_S * _FIRST_SHARE)
        if growth is not None and not growth.holds(_peaks(found[first])):
            growth = None
            run_all([(first, last)], begun + TIME_S * _FIRST_SHARE)
        ran = [
            number
            for number in order
            if number in found[first] and (number in growth.needed if growth else number <= last)
        ]
        run_all([(mode, number) for number in ran for mode in others], begun + TIME_S)
    rows = {mode: _peaks(row) for mode, row in found.items()}
    if growth is not None and all(growth.needed <= row.keys() for row in rows.values()):
        for row in rows.values():
            row[last] = growth.computed.bound(row)
            if growth.checked not in row:
                row[growth.checked] = growth.check.bound(row)
    return _combine(axes, [point_of(axes, dims) for dims in wanted], len(points), found, rows, _weights_bytes(folder))


def _is_described(dims: Dims, described: Sequence[Dims]) -> bool:
    """Return whether a point is the last of these, one input at a time."""
    return bool(described) and dims == dict.fromkeys(dims, 1) | dict(described[-1])


def _combine(
    axes: tuple[tuple[str, int], ...],
    sizes: Sequence[tuple[int, ...]],
    count: int,
    found: Mapping[str, Mapping[int, _Measured]],
    rows: Mapping[str, Mapping[int, int]],
    weights: int,
) -> Footprint | None:
    """Put the measurements of all modes together, at the points that all modes have a bound for.

    Args:
        axes: the free dimensions.
        sizes: the points, of which the first `count` belong into the footprint.
        count: see `sizes`.
        found: what was measured, by mode and number of the point.
        rows: the same peaks, and those that were computed [B].
        weights: size of the weights file [B].
    """
    if not all(found.values()):
        return None
    bounds = {
        mode: Footprint(
            axes,
            tuple(sizes[number] for number in row),
            (
                ModeFootprint(
                    "", 0, 0, tuple(_units(peak) for peak in _monotone([sizes[n] for n in row], [*row.values()]))
                ),
            ),
        )
        for mode, row in rows.items()
    }
    chosen = [
        dims_at(axes, sizes[number])
        for number in range(count)
        if all(bound.covers(dims_at(axes, sizes[number])) for bound in bounds.values())
    ]
    points = tuple(point_of(axes, dims) for dims in chosen)
    modes = []
    for mode, bound in bounds.items():
        opening = max(one.opening for one in found[mode].values())
        modes.append(
            ModeFootprint(
                mode,
                _units(opening, exact=min(weights, opening)),
                max(-(-one.mapped // UNIT) for one in found[mode].values()),
                tuple(_monotone(points, [bound.predict("", dims) // UNIT for dims in chosen])),
            )
        )
    return Footprint(axes, points, tuple(modes)) if points else None


def _peaks(row: Mapping[int, _Measured]) -> dict[int, int]:
    return {number: measured.peak for number, measured in row.items()}


def _weights_bytes(folder: Path) -> int:
    return sum(item.stat().st_size for item in folder.iterdir() if item.suffix == ".weights")


def _run_child(backend: str, mode: str, folder: Path, file: Path) -> _Measured | None:
    """Measure one session; None where the model can't run on these feeds, or this machine lacks memory or time."""
    # Where this process found the runtime, so that a source tree that isn't installed works as well.
    root = str(Path(seed_runtime.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Run as a file: importing its package would import the whole exporter, and a session would then grow into heap
    # that those imports had freed, where its growth can't be seen. -P: modules beside the file must not be found.
    command = [sys.executable, "-P", str(Path(__file__).with_name("footprint_process.py"))]
    command += [backend, mode, str(plan.THREADS_MEASURED), str(folder), str(file)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    answer = json.loads(done.stdout)
    if "error" in answer:
        return None
    return _Measured(answer["opening"], answer["mapped"], answer["peak"])


def _monotone(points: Sequence[tuple[int, ...]], peaks: Sequence[int]) -> list[int]:
    """Raise each peak to the largest peak among the points that are no larger in any dimension."""
    return [
        max(
            peak
            for other, peak in zip(points, peaks, strict=True)
            if all(a <= b for a, b in zip(other, point, strict=True))
        )
        for point in points
    ]


def _units(size: int, exact: int = 0) -> int:
    """Add the margin and round up to the footprint's units; `exact` bytes of `size` need no margin."""
    return -(-(size + MARGIN_BYTES + (size - exact) // MARGIN_DIVISOR) // UNIT)


def _inputs(folder: Path, backend: str) -> tuple[TensorSpec, ...]:
    """Return the model's inputs, as the backend's mode with the least memory gives them."""
    library = backends.get(backend)
    runner = library.open(folder, library.modes[-1], threads=1)
    try:
        return runner.inputs
    finally:
        runner.close()


def _size_order(dims: Mapping[str, int]) -> tuple[int, ...]:
    """Return a sort key: smaller inputs first."""
    return (math.prod(dims.values()), *dims.values())
