"""Measure the memory of an assembled model's sessions, for the section FOOTPRINT of its seed.

Each mode runs at each size in a fresh process. That also bounds a session that sees many sizes: after a run its
backend releases what the run has allocated (docs/adr/0003-onnx-runtime-memory.md).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

import seed_runtime
from seed_exporter.evaluate.footprint_sizes import ones_at, size_families
from seed_runtime import backends
from seed_runtime.backends import Dims, Feeds, TensorSpec, free_axes, point_of
from seed_runtime.memory import plan
from seed_runtime.memory.footprint import FREE_DIMS_MAX, POINTS_MAX, UNIT, Footprint, ModeFootprint

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
    sample: Mapping[str, int] | None = None,
    backend: str = "onnxruntime",
) -> Footprint | None:
    """Run every mode at every point, in child processes, and record the peaks with a margin.

    Args:
        folder: an assembled model, as the device will have it.
        points: sizes of the free dimensions ("input_ids:1" is axis 1 of input_ids), in any order, at most
            POINTS_MAX; None for `size_families`. A point on which the model fails is dropped.
        feeds_at: makes the feeds of a point; None for ones, which are valid as tokens and as pixels.
        sample: sizes on which the model is known to run, where no points are given.
        backend: the backend whose modes are measured.

    Returns:
        The footprint, or None where nothing can be measured: anywhere but on Linux, or where every point fails.
    """
    inputs = _inputs(folder, backend)
    axes = free_axes(inputs)
    if len(axes) > FREE_DIMS_MAX:
        return None
    families = [list(points)] if points is not None else size_families(inputs, sample)
    make = feeds_at or (lambda dims: ones_at(inputs, dims))
    best: Footprint | None = None
    for family in families:
        chosen = [dict(dims) for dims in sorted(family, key=_size_order)][:POINTS_MAX]
        found = _measure_family(folder, backend, axes, chosen, make)
        if found is not None and (best is None or len(found.points) > len(best.points)):
            best = found
        if best is not None and len(best.points) >= min(POINTS_WANTED, len(chosen)):
            break
    return best


def packed_size_max(inputs: Sequence[TensorSpec], backend: str = "onnxruntime") -> int:
    """Return the most bytes that the section FOOTPRINT can take, before anything is measured [B]."""
    axes = free_axes(inputs)
    if len(axes) > FREE_DIMS_MAX:
        return 0
    points = max(len(family) for family in size_families(inputs))
    names = sum(len(name.encode()) + 2 for name, _ in axes)
    modes = sum(len(mode) + 1 + _NUMBER_BYTES * (2 + points) for mode in backends.get(backend).modes)
    return 3 + names + 2 * points * len(axes) + modes


def _measure_family(
    folder: Path,
    backend: str,
    axes: tuple[tuple[str, int], ...],
    points: list[Dims],
    feeds_at: Callable[[Dims], Feeds],
) -> Footprint | None:
    """Measure at these points until time is up; None where the model runs at none of them."""
    modes = backends.get(backend).modes
    end = time.monotonic() + TIME_S
    sizes: list[tuple[int, ...]] = []
    found: list[dict[str, _Measured]] = []
    with tempfile.TemporaryDirectory(prefix="seed-footprint-") as temporary, ThreadPoolExecutor(2) as pool:
        file = Path(temporary) / "feeds.npz"
        for dims in points:
            if len(found) >= POINTS_WANTED and time.monotonic() > end:
                break
            np.savez(file, allow_pickle=False, **feeds_at(dims))
            # One mode alone first: what it can't run, the others needn't try.
            first = _run_child(backend, modes[0], folder, file)
            if first is None:
                continue
            others = pool.map(partial(_run_child, backend, folder=folder, file=file), modes[1:])
            rows = {mode: row for mode, row in zip(modes, [first, *others], strict=True) if row is not None}
            if len(rows) == len(modes):
                found.append(rows)
                sizes.append(point_of(axes, dims))
    if not found:
        return None
    weights = sum(item.stat().st_size for item in folder.iterdir() if item.suffix == ".weights")
    return Footprint(axes, tuple(sizes), tuple(_mode(mode, sizes, found, weights) for mode in modes))


def _mode(
    mode: str, sizes: Sequence[tuple[int, ...]], found: Sequence[Mapping[str, _Measured]], weights: int
) -> ModeFootprint:
    """Combine what was measured of one mode; `weights` is the size of the weights file [B]."""
    rows = [row[mode] for row in found]
    opening = max(row.opening for row in rows)
    return ModeFootprint(
        mode,
        _units(opening, exact=min(weights, opening)),
        max(-(-row.mapped // UNIT) for row in rows),
        tuple(_units(peak) for peak in _monotone(sizes, [row.peak for row in rows])),
    )


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
