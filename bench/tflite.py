"""Make seeds of every `.tflite` of MediaPipe's and Basic Pitch's packages: lossless, and quantized with real inputs.

Lossless: the file that is assembled is compared with the source byte by byte, and outputs are those of the source where
LiteRT has all operators. Quantized: the default quality at effort 2, calibrated on 48 wallpapers or windows of audio;
errors are those on 24 others, of other sources (`bench/public`), which no part of the export sees. Photos are squeezed
to the model's input, and faces and hands are not in them: errors say how close the network computes, and nothing of its
task. Ratios are to the source file, whose floats are of 16 bits in most models.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

import seed_runtime
from bench import measure
from bench.measure import Figures, Goal
from seed_exporter.evaluate.compare import compare
from seed_exporter.evaluate.model_files import backend_of
from seed_exporter.pipeline import export
from seed_exporter.results import Options
from seed_runtime.errors import UnsupportedError

CALIBRATION, JUDGED = 48, 24
EFFORT = 2
"""Effort of the quantized exports: those of the default effort take minutes each."""
QUICK = ("face_detection_full_range_sparse", "face_detection_short_range", "hand_recrop")
"""Models that are quantized with --quick."""


def run(quick: bool = False) -> Figures:
    from bench.public import cache_folder, tflite

    cache = cache_folder()
    rows = []
    for name, path in tflite.models(cache).items():
        measure.note(f"tflite: {name}")
        with measure.scratch() as folder:
            rows.append({"model": name, **_measured(cache, name, path, folder, not quick or name in QUICK)})
        measure.say(str(rows[-1]))
    goals = [
        Goal(f"{row['model']}: bytes and outputs the same, lossless", float(row["exact"]), 1, "", least=True)
        for row in rows
    ]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals], "load": measure.load()}


def _measured(cache: Path, name: str, path: Path, folder: Path, quantizes: bool) -> Figures:
    data = path.read_bytes()
    start = time.perf_counter()
    kept = export(path, output=folder / "kept.seed", options=Options(method="lossless"))
    made = seed_runtime.open(folder / "kept.seed").assemble(folder / "kept") / "model.tflite"
    row: dict[str, Any] = {
        "bytes": len(data),
        "weights": kept.seed.header.model.source_bytes,
        "lossless": kept.bytes,
        "lossless_seconds": round(time.perf_counter() - start, 1),
        "exact": made.read_bytes() == data and all(error.identical for error in kept.outputs.values()),
    }
    if not quantizes:
        return row
    try:
        return row | _quantized(cache, name, path, folder)
    except UnsupportedError as error:
        return row | {"refused": str(error)}


def _quantized(cache: Path, name: str, path: Path, folder: Path) -> Figures:
    from bench.public import tflite

    (spec,) = seed_runtime.open(folder / "kept.seed").inputs()
    given = spec.name, tuple(size if isinstance(size, int) else 1 for size in spec.shape or ())
    calibration = np.stack(tflite.inputs(cache, name, given[1], CALIBRATION, "calib"))
    np.savez(folder / "calib.npz", allow_pickle=False, **{spec.name: calibration})
    start = time.perf_counter()
    result = export(path, output=folder / "small.seed", options=Options(calib=folder / "calib.npz", effort=EFFORT))
    seconds = time.perf_counter() - start
    seed_runtime.open(folder / "small.seed").assemble(folder / "small")
    judged = tflite.feeds(cache, name, given, JUDGED, "test")
    outputs = []
    for model in (folder / "kept", folder / "small"):
        runner = backend_of(model).open(model, "fast")
        outputs.append([runner.run(feeds) for feeds in judged])
        runner.close()
    errors = compare(outputs[0], outputs[1]).values()
    return {
        "quantized": result.bytes,
        "quantized_seconds": round(seconds, 1),
        "calibrated": len(result.calibrated),
        "line_kept": result.line_kept,
        "relative": max((error.relative for error in errors if math.isfinite(error.relative)), default=math.nan),
        "cosine": min((error.cosine for error in errors if math.isfinite(error.cosine)), default=math.nan),
    }


def table(figures: Figures) -> list[str]:
    lines = [
        "| model | file | lossless | ratio | quantized | ratio | worst error | worst cosine |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        small = f"| {'refused' if 'refused' in row else ''} | | | |"
        if "quantized" in row:
            small = (
                f"| **{row['quantized'] / 1e3:,.1f} KB** | {row['bytes'] / row['quantized']:.2f}x "
                f"| {100 * row['relative']:.2f} % | {row['cosine']:.5f} |"
            )
        lines.append(
            f"| {row['model']} | {row['bytes'] / 1e3:,.1f} KB | {row['lossless'] / 1e3:,.1f} KB "
            f"| {row['bytes'] / row['lossless']:.2f}x {small}"
        )
    return lines
