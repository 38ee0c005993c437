"""Measures the memory of an assembled model's sessions, for the section FOOTPRINT of its seed.

Each mode runs at each size in a fresh process. That is also what bounds a session that sees many sizes: its
backend gives back after a run what the run has taken (docs/adr/0003-onnx-runtime-memory.md).
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

import numpy as np

import seed_runtime
from seed_runtime import backends
from seed_runtime.backends import Dims, Feeds, TensorSpec, free_axes
from seed_runtime.memory import plan
from seed_runtime.memory.footprint import FREE_DIMS_MAX, POINTS_MAX, UNIT, Footprint, ModeFootprint

MARGIN_BYTES = 1 << 20
MARGIN_PART = 10
"""A tenth of what isn't mapped. Of four models on x86-64, sessions that saw 40 inputs of random sizes peaked
at up to 1.06 times the bound without a margin; the rest is for other processors and library versions."""

POINTS_WANTED = 3

_BATCH_SIZES = (1, 2, 4, 8)
_LARGE_BATCH = 4
_SEQUENCES = (16, 64, 256, 512)
_IMAGES = (64, 128, 224, 320)
# Readers of text lines: the height is fixed by the model although its type says free.
_STRIP_HEIGHTS = (48, 32, 64)
_STRIP_WIDTHS = (64, 160, 320, 640)

# No further point is begun after so long, except the first three: a large model's range is smaller then.
TIME_S = 20
_TIMEOUT_S = 120
_NUMBER_BYTES = 3
"""Of a packed peak, up to 128 GiB."""


@dataclass(frozen=True)
class _Measured:
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
            POINTS_MAX; None for `shapes_for_points`. A point on which the model fails is dropped.
        feeds_at: makes the feeds of a point; None for ones, which are valid as tokens and as pixels.
        sample: sizes on which the model is known to run, where no points are given.
        backend: whose modes are measured.

    Returns None where nothing can be measured: anywhere but on Linux, or where every point fails.
    """
    inputs = _inputs(folder, backend)
    axes = free_axes(inputs)
    if len(axes) > FREE_DIMS_MAX:
        return None
    families = [list(points)] if points is not None else shapes_for_points(inputs, sample)
    make = feeds_at or (lambda dims: ones_at(inputs, dims))
    best: Footprint | None = None
    for family in families:
        chosen = [dict(dims) for dims in sorted(family, key=_scale)][:POINTS_MAX]
        found = _measure_family(folder, backend, axes, chosen, make)
        if found is not None and (best is None or len(found.points) > len(best.points)):
            best = found
        if best is not None and len(best.points) >= min(POINTS_WANTED, len(chosen)):
            break
    return best


def packed_size_most(inputs: Sequence[TensorSpec], backend: str = "onnxruntime") -> int:
    """Bytes that the section FOOTPRINT will take at most, before anything is measured."""
    axes = free_axes(inputs)
    if len(axes) > FREE_DIMS_MAX:
        return 0
    points = max(len(family) for family in shapes_for_points(inputs))
    names = sum(len(name.encode()) + 2 for name, _ in axes)
    modes = sum(len(mode) + 1 + _NUMBER_BYTES * (2 + points) for mode in backends.get(backend).modes)
    return 3 + names + 2 * points * len(axes) + modes


def shapes_for_points(inputs: Sequence[TensorSpec], sample: Mapping[str, int] | None = None) -> list[list[Dims]]:
    """Lists of sizes to measure at; the first of which enough run is the one to keep.

    The first axis is taken for the batch, two free axes of a picture for its height and width, anything else
    for a sequence. Sizes grow together, and the batch on its own at two of them. A `sample` is scaled.
    """
    axes = free_axes(inputs)
    keys = [f"{name}:{axis}" for name, axis in axes]
    roles = dict(zip(keys, (_role(inputs, name, axis) for name, axis in axes), strict=True))
    batch = [key for key in keys if roles[key] == "batch"]
    rest = [key for key in keys if roles[key] != "batch"]
    if not keys:
        return [[{}]]
    if not rest:
        return [[dict.fromkeys(keys, size) for size in _BATCH_SIZES]]
    if sample is not None:
        known = dict(sample)
        families = [[_scaled(known, rest, part) for part in (0.25, 0.5, 1, 2)]]
        families.append([_scaled(known, rest[-1:], part) for part in (0.25, 0.5, 1, 2)])
    else:
        families = [[_by_role(rest, roles, _SEQUENCES[i], _IMAGES[i], _IMAGES[i]) for i in range(4)]]
        if "height" in roles.values():
            for height in _STRIP_HEIGHTS:
                families.append([_by_role(rest, roles, 64, height, width) for width in _STRIP_WIDTHS])
    return [_with_batches(family, batch) for family in families]


def ones_at(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> Feeds:
    """Feeds of ones, with these sizes of the free dimensions."""
    sizes: dict[str, int] = {}
    feeds = {}
    for spec in inputs:
        shape = []
        for axis, size in enumerate(spec.shape):
            if not isinstance(size, int):
                given = dims.get(f"{spec.name}:{axis}")
                size = sizes.setdefault(size, given or 1) if isinstance(size, str) else given or 1
            shape.append(size)
        feeds[spec.name] = np.ones(shape, dtype=np.dtype(spec.dtype))
    return feeds


def _measure_family(
    folder: Path,
    backend: str,
    axes: tuple[tuple[str, int], ...],
    points: list[Dims],
    feeds_at: Callable[[Dims], Feeds],
) -> Footprint | None:
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
                sizes.append(tuple(dims[f"{name}:{axis}"] for name, axis in axes))
    if not found:
        return None
    weights = sum(item.stat().st_size for item in folder.iterdir() if item.suffix == ".weights")
    return Footprint(axes, tuple(sizes), tuple(_mode(mode, sizes, found, weights) for mode in modes))


def _mode(
    mode: str, sizes: Sequence[tuple[int, ...]], found: Sequence[Mapping[str, _Measured]], weights: int
) -> ModeFootprint:
    rows = [row[mode] for row in found]
    opening = max(row.opening for row in rows)
    return ModeFootprint(
        mode,
        _units(opening, exact=min(weights, opening)),
        max(-(-row.mapped // UNIT) for row in rows),
        tuple(_units(peak) for peak in _monotone(sizes, [row.peak for row in rows])),
    )


def _run_child(backend: str, mode: str, folder: Path, file: Path) -> _Measured | None:
    """None where the model can't run on these feeds, or this machine has not the memory or patience for it."""
    # Where this process found the runtime, so that a source tree that isn't installed works as well.
    root = str(Path(seed_runtime.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Run as a file: its package imports the whole exporter, and a session would then grow into heap that
    # those imports had left behind, where its growth can't be seen. -P: its folder is no place to import from.
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
    """Raise each peak to the largest among the points that are nowhere larger."""
    return [
        max(
            peak
            for other, peak in zip(points, peaks, strict=True)
            if all(a <= b for a, b in zip(other, point, strict=True))
        )
        for point in points
    ]


def _units(size: int, exact: int = 0) -> int:
    """With the margin, in the footprint's units; `exact` bytes of it need none."""
    return -(-(size + MARGIN_BYTES + (size - exact) // MARGIN_PART) // UNIT)


def _inputs(folder: Path, backend: str) -> tuple[TensorSpec, ...]:
    library = backends.get(backend)
    runner = library.open(folder, library.modes[-1], threads=1)
    try:
        return runner.inputs
    finally:
        runner.close()


def _role(inputs: Sequence[TensorSpec], name: str, axis: int) -> str:
    spec = next(spec for spec in inputs if spec.name == name)
    dim = str(spec.shape[axis] or "").lower()
    if "seq" in dim or "len" in dim:
        return "sequence"
    if axis == 0 or "batch" in dim:
        return "batch"
    if len(spec.shape) == 4:
        # Channels stand last where that axis is fixed and small.
        last = spec.shape[3]
        first = 1 if isinstance(last, int) and last <= 4 else 2
        if axis in (first, first + 1):
            return "height" if axis == first else "width"
    return "sequence"


def _by_role(keys: Sequence[str], roles: Mapping[str, str], sequence: int, height: int, width: int) -> Dims:
    sizes = {"sequence": sequence, "height": height, "width": width}
    return {key: sizes[roles[key]] for key in keys}


def _scaled(sample: Mapping[str, int], keys: Sequence[str], part: float) -> Dims:
    return {key: max(1, int(size * part)) if key in keys else size for key, size in sample.items()}


def _with_batches(family: list[Dims], batch: Sequence[str]) -> list[Dims]:
    """Each of the family with its own batch or one, and the second and third with a large batch as well."""
    points = [dict.fromkeys(batch, 1) | dims for dims in family]
    if batch:
        points += [dims | dict.fromkeys(batch, _LARGE_BATCH) for dims in points[1:3]]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(sorted(point.items())) for point in points)]


def _scale(dims: Mapping[str, int]) -> tuple[int, ...]:
    return (math.prod(dims.values()), *dims.values())
