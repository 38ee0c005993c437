"""What the default setting does to every public model's task, and what other sizes do to two of them.

Each model is exported without calibration data, assembled again, and scored by its own harness (bench/public)
beside the original. Scores of a few hundred samples move by a percent on their own, so agreement, KL and cosine
stand beside them. `--method lossless` must give outputs that are the same bit by bit on real inputs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import seed_runtime
from bench import measure
from bench.measure import Figures, Goal
from seed_exporter.export import Options, export

TARGETS = {"minilm6": (6, 8, 10, 12), "efflite0": (6, 8, 10)}
"""Ratios of the curve, beside the default."""
CURVE_SAMPLES = 250
LOSS = 0.01
"""Of the original's score."""
SAMPLES = {"smollm2": 12}
"""Fewer than the harness's own where a whole score takes minutes."""
QUICK_SAMPLES = 24
REAL_INPUTS = 4


def run(quick: bool = False) -> Figures:
    from bench.public import MODELS

    rows: list[Figures] = []
    curves: list[Figures] = []
    goals: list[Goal] = []
    names = ("magika", "ppcls") if quick else tuple(MODELS)
    with measure.scratch() as folder:
        for name in names:
            limit = QUICK_SAMPLES if quick else SAMPLES.get(name)
            row = _default(name, folder, limit)
            rows.append(row)
            goals += _goals(row)
        for name in () if quick else TARGETS:
            curves.append({"model": name, "points": _curve(name, folder)})
    return {"rows": rows, "curves": curves, "goals": [goal.as_json() for goal in goals]}


def _goals(row: Figures) -> list[Goal]:
    original, candidate = row["compare"]["original"], row["compare"]["candidate"]
    change = (original - candidate) if row["compare"]["better"] == "higher" else (candidate - original)
    return [
        Goal(f"{row['model']}: score lost, of the original's", change / abs(original), LOSS, ""),
        Goal(f"{row['model']}: outputs of lossless identical", float(row["identical"]), 1, "", least=True),
    ]


def _default(name: str, folder: Path, limit: int | None) -> Figures:
    from bench.public import MODELS, cache_folder, onnx_run

    model, cache = MODELS[name], cache_folder()
    source = model.prepare(cache)
    measure.note(f"quality: {name}: scoring the original")
    original = model.score(cache, onnx_run(source), limit)
    point = _point(name, folder, Options(), original, limit)
    measure.note(f"quality: {name}: lossless")
    exact = _assembled(source, folder, Options(method="lossless"))
    inputs = model.inputs(cache, REAL_INPUTS, "test")
    return {"model": name, **point, "identical": _identical(source, exact, inputs)}


def _curve(name: str, folder: Path) -> list[Figures]:
    from bench.public import MODELS, cache_folder, onnx_run

    model, cache = MODELS[name], cache_folder()
    original = model.score(cache, onnx_run(model.prepare(cache)), CURVE_SAMPLES)
    options = [Options()] + [Options(target=float(target)) for target in TARGETS[name]]
    return [_point(name, folder, option, original, CURVE_SAMPLES) for option in options]


def _point(name: str, folder: Path, options: Options, original: Any, limit: int | None) -> Figures:
    from bench.public import MODELS, cache_folder, onnx_run

    model, cache = MODELS[name], cache_folder()
    wanted = f"{options.target:g}x" if options.target else "the default"
    measure.note(f"quality: {name} at {wanted}: exporting")
    path = folder / "model.seed"
    result = export(model.prepare(cache), output=path, options=options)
    target = folder / "assembled"
    seed_runtime.open(path).assemble(target)
    measure.note(f"quality: {name} at {wanted}: scoring")
    compared = model.compare(original, model.score(cache, onnx_run(target / "model.onnx"), limit))
    shutil.rmtree(target)
    return {
        "target": options.target,
        "bytes": result.bytes,
        "ratio": measure.rounded(result.ratio),
        "bits_per_weight": measure.rounded(result.bits_per_weight),
        "compare": {key: measure.rounded(value) for key, value in compared.items()},
    }


def _assembled(source: Path, folder: Path, options: Options) -> Path:
    path, target = folder / "exact.seed", folder / "exact"
    export(source, output=path, options=options)
    shutil.rmtree(target, ignore_errors=True)
    seed_runtime.open(path).assemble(target)
    return target / "model.onnx"


def _identical(source: Path, exact: Path, inputs: Sequence[dict[str, np.ndarray]]) -> bool:
    """Outputs byte by byte. One thread: with more, ONNX Runtime may add in another order from run to run."""
    from bench.public import onnx_run

    first, second = onnx_run(source, threads=1), onnx_run(exact, threads=1)
    return all(
        a.tobytes() == b.tobytes() for feeds in inputs for a, b in zip(first(feeds), second(feeds), strict=True)
    )



def distance(compared: Figures) -> str:
    """Agreement, KL and the like, whatever the model's harness gives."""
    known = {"metric", "better", "original", "candidate", "n"}
    return ", ".join(f"{key} {value:.4g}" for key, value in compared.items() if key not in known)


def table(figures: Figures) -> list[str]:
    lines = [
        "| model | seed | ratio | score | original | seed's | n | beside it | lossless |",
        "|---|--:|--:|---|--:|--:|--:|---|---|",
    ]
    for row in figures["rows"]:
        compared = row["compare"]
        lines.append(
            f"| {row['model']} | {row['bytes'] / 1e6:.3f} MB | **{row['ratio']:.2f}x** "
            f"| {compared['metric']}, {compared['better']} is better | {compared['original']:.4f} "
            f"| {compared['candidate']:.4f} | {compared['n']} | {distance(compared)} "
            f"| {'identical' if row['identical'] else 'DIFFERENT'} |"
        )
    for curve in figures["curves"]:
        lines += ["", f"{curve['model']} at other sizes, {CURVE_SAMPLES} samples:", ""]
        lines += ["| seed | ratio | bits/weight | original | seed's | beside it |", "|--:|--:|--:|--:|--:|---|"]
        for point in curve["points"]:
            compared = point["compare"]
            lines.append(
                f"| {point['bytes'] / 1e6:.3f} MB | {point['ratio']:.2f}x | {point['bits_per_weight']:.2f} "
                f"| {compared['original']:.4f} | {compared['candidate']:.4f} | {distance(compared)} |"
            )
    return lines
