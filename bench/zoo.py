"""Measure the ready seeds of `seed-export zoo`: size, quality beside the original, latency and peak memory.

Each recipe is exported with its own goal at the default effort, as a user does. Models that bench/public knows as well
are assembled and scored by its task on samples that nothing was chosen by, beside the original. Latency and memory are
those that `seed-run --bench` prints, on zeros where a seed has no golden sample. `--quick` measures two small recipes
on few samples at effort 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import seed_runtime
from bench import measure
from bench.measure import Figures, Goal
from bench.publish import DOCS
from bench.quality import QUICK_SAMPLES, SAMPLES, distance
from seed_exporter.zoo.prepare import prepare
from seed_exporter.zoo.recipe import Recipe
from seed_exporter.zoo.registry import RECIPES

PAGE = DOCS / "zoo.md"
"""Where the table stands."""
PUBLIC = {
    "ppocr-detection": "ppdet",
    "ppocr-recognition": "pprec",
    "ppocr-direction": "ppcls",
    "magika": "magika",
    "minilm-l6": "minilm6",
    "efficientnet-lite0": "efflite0",
    "basic-pitch": "basicpitch",
}
"""Models of bench/public by the names of recipes."""
QUICK = ("ppocr-direction", "magika")
LOSS = 0.01
"""Largest share of the original's score that a seed may lose."""


def run(quick: bool = False) -> Figures:
    return measured(QUICK if quick else tuple(RECIPES), quick)


def measured(names: tuple[str, ...], quick: bool = False) -> Figures:
    """Measure some recipes, in this order."""
    rows = []
    with measure.scratch() as folder:
        for name in names:
            rows.append(_row(RECIPES[name], folder, quick))
            measure.say(f"{name}: {rows[-1]['ratio']:g}x")
    return {"rows": rows, "goals": [_goal(row).as_json() for row in rows if row["compare"]]}


def _goal(row: Figures) -> Goal:
    original, candidate = row["compare"]["original"], row["compare"]["candidate"]
    change = (original - candidate) if row["compare"]["better"] == "higher" else (candidate - original)
    return Goal(f"{row['name']}: score lost, of the original's", change / abs(original), LOSS, "")


def _row(recipe: Recipe, folder: Path, quick: bool) -> Figures:
    measure.note(f"zoo: {recipe.name}: exporting")
    seed, place = folder / f"{recipe.name}.seed", folder / recipe.name
    place.mkdir()
    effort = ["--effort", "1"] if quick else []
    exported = _call("seed_exporter.cli", f"zoo:{recipe.name}", "-o", str(seed), *effort)
    source = prepare(recipe, place, lambda line: None).model
    measure.note(f"zoo: {recipe.name}: timing")
    timed = _call("seed_runtime.cli", str(seed), "--bench", *_input(seed, folder / f"{recipe.name}.npz"))
    return {
        "name": recipe.name,
        "license": recipe.license.spdx,
        "download_bytes": recipe.download_bytes,
        "bytes": exported["bytes"],
        "ratio": exported["ratio"],
        "compare": _compared(recipe.name, source, seed, place / "assembled", quick),
        "latency_ms": timed["latency_ms"]["p50"],
        "assemble_s": timed["assemble_s"],
        "peak_rss_mib": timed["peak_rss_mib"],
    }


def _input(seed: Path, path: Path) -> list[str]:
    """Return options that give zeros of the least size to a seed without a golden sample, whose path is `path`."""
    opened = seed_runtime.open(seed)
    if opened.golden_shapes() is not None:
        return []
    shapes = {
        spec.name: [size if isinstance(size, int) else 1 for size in spec.shape or ()] for spec in opened.inputs()
    }
    arrays = {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in opened.inputs()}
    np.savez(path, allow_pickle=False, **arrays)
    return ["--input", str(path)]


def _compared(name: str, source: Path, seed: Path, folder: Path, quick: bool) -> Figures | None:
    """Return the scores of the original and of the seed; None for a model without a task."""
    from bench.public import MODELS, cache_folder, onnx_run

    if name not in PUBLIC:
        return None
    measure.note(f"zoo: {name}: scoring")
    model, cache = MODELS[PUBLIC[name]], cache_folder()
    model.prepare(cache)
    limit = QUICK_SAMPLES if quick else SAMPLES.get(PUBLIC[name])
    seed_runtime.open(seed).assemble(folder)
    scores = [model.score(cache, onnx_run(path), limit) for path in (source, folder / "model.onnx")]
    return {key: measure.rounded(value) for key, value in model.compare(*scores).items()}


def _call(module: str, *arguments: str) -> Figures:
    """Return what a command prints with --json."""
    done = subprocess.run([sys.executable, "-m", module, *arguments, "--json"], stdout=subprocess.PIPE, check=True)
    found: Figures = json.loads(done.stdout)
    return found


def table(figures: Figures) -> list[str]:
    head = "recipe | license | download | seed | ratio | score | original | seed's | n | beside it"
    lines = [
        f"| {head} | a run | assembly | peak memory |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        compared = row["compare"]
        quality = "| - | - | - | - | - |"
        if compared:
            quality = (
                f"| {compared['metric']}, {compared['better']} is better | {compared['original']:.4f} "
                f"| {compared['candidate']:.4f} | {compared['n']} | {distance(compared)} |"
            )
        lines.append(
            f"| {row['name']} | {row['license']} | {row['download_bytes'] / 1e6:.1f} MB "
            f"| {row['bytes'] / 1e6:.3f} MB | **{row['ratio']:.2f}x** {quality} {row['latency_ms']:.1f} ms "
            f"| {row['assemble_s']:.2f} s | {row['peak_rss_mib']:.0f} MiB |"
        )
    return lines
