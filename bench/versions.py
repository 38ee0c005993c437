"""`python -m bench versions`: bytes of a version that was fine-tuned elsewhere, as a whole seed and on its base.

Both are exported to the same quality; damage is the KL divergence from the version itself on inputs that no export
saw, and bytes on the base are those at the damage of the whole seed, between two exports. The base is a seed of the
model before the fine-tune. The pictures are made by `python -m bench.claims.data glyphs --out build/claims`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import seed_exporter
import seed_runtime
from bench import measure
from bench.equal_damage import FLOOR
from bench.measure import Figures, Goal
from seed_exporter import loaders
from seed_exporter.results import Options
from seed_runtime.assembly.base_file import key_of, places_of
from seed_runtime.delta import step_by_rms, write_delta
from seed_runtime.format.header import Hole
from seed_runtime.format.sections.holes import name_digest
from seed_runtime.seed import Seed
from seed_runtime.skeletons.onnx import MODEL_FILE

TITLE = "Versions on a base"
STRENGTHS = (10, 60, 300)
"""Steps of the fine-tunes."""
QUALITIES = (0.97, 0.99)
"""Of both seeds; the base has the default."""
TRAINED = 500
"""Steps of the models before the fine-tune."""
DATA = Path("build/claims")
SHARE_MOST = 0.25
"""Goal: the share of a version's own seed that it takes on its base."""


def run(*, quick: bool = False) -> Figures:
    """Export all versions, or with `quick` one of the language model.

    Raises:
        ModuleNotFoundError: torch isn't installed.
    """
    import torch

    from bench import versions_models as models

    torch.set_num_threads(1)
    steps = 20 if quick else TRAINED
    makers: list[Any] = [lambda: models.text(steps)]
    if not quick and (DATA / "glyphs-train.npz.xz").is_file():
        makers.append(lambda: models.characters(DATA, steps))
    rows: list[Figures] = []
    with measure.scratch() as folder:
        for make in makers:
            fine = make()
            measure.say(fine.name)
            rows += [_compared(fine, strength, folder) for strength in (STRENGTHS[:1] if quick else STRENGTHS)]
    worst = max(side["share"] for row in rows for side in row["sides"])
    goal = Goal("largest share of its own seed, at equal damage", worst, SHARE_MOST, "")
    return {"trained": steps, "rows": rows, "goals": [goal.as_json()]}


def table(figures: Figures) -> list[str]:
    """Return a line for each fine-tune and quality, and one for the vectors of each fine-tune."""
    lines = [
        "| model | steps | changed by | quality | own seed [B] | damage | on its base [B] | damage | at equal damage |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['model']} | {row['steps']} | {100 * row['change']:.1f} % | {side['quality']} | {side['own']:,} "
        f"| {side['damage']:.2g} | {side['update']:,} | {side['update_damage']:.2g} | {100 * side['share']:.0f} % |"
        for row in figures["rows"]
        for side in row["sides"]
    ]
    lines += ["", "| model | steps | norms and biases | quantized [B] | every bit [B] | base [B] |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for row in figures["rows"]:
        found = row["vectors"]
        lines.append(
            f"| {row['model']} | {row['steps']} | {found['elements']:,} | {found['quantized']:,} | {found['exact']:,} "
            f"| {row['base']:,} |"
        )
    return lines


def _compared(fine: Any, steps: int, folder: Path) -> Figures:
    """Export one fine-tune at each quality, whole and on the base."""
    calib, base = folder / f"{fine.name}.npz", folder / f"{fine.name}.seed"
    if not base.exists():
        np.savez(calib, **fine.calibration)
        old = fine.write(fine.old, folder / f"{fine.name}.onnx")
        seed_exporter.export(old, output=base, options=Options(calib=calib))
    version = fine.tuned(steps)
    model = fine.write(version, folder / "new.onnx")
    expected, old_seed = _scores(model, fine.judged), seed_runtime.open(base)
    sides = []
    for quality in QUALITIES:
        found: list[tuple[int, float]] = []
        for bases in ((), (base,)):
            path = folder / "new.seed"
            options = Options(quality=quality, base=bases, calib=calib)
            made = seed_exporter.export(model, output=path, options=options)
            seed = seed_runtime.open(path, base=None if made.seed.base is None else old_seed)
            found.append((made.bytes, _damage(seed, fine.judged, expected)))
        measure.say(f"{steps} steps, quality {quality}: {found}")
        (own, damage), (update, update_damage) = found
        sides.append(
            {"quality": quality, "own": own, "damage": damage, "update": update, "update_damage": update_damage}
        )
    points = [(side["update"], side["update_damage"]) for side in sides]
    for side in sides:
        side["share"] = _bytes_at(side["damage"], points) / side["own"]
    row = {"model": fine.name, "steps": steps, "change": _change(fine.old, version), "base": base.stat().st_size}
    return measure.rounded({**row, "vectors": vectors_alone(old_seed, model, folder), "sides": sides})


def vectors_alone(base: Seed, model: Path, folder: Path) -> Figures:
    """Write a version's vectors, which are norms and biases, on the base, quantized and bit for bit.

    Returns:
        Their elements, and the bytes of both deltas.
    """
    holes, values = places_of(base.header.holes), {}
    for weight in loaders.load(model).weights.values():
        key = key_of(Hole(weight.dtype, tuple(weight.shape), 0, name_digest=name_digest(weight.name)))
        if weight.dtype.name == "float32" and len(weight.shape) == 1 and key in holes:
            values[holes[key]] = weight.data
    sizes = [write_delta(base, values, folder / "vectors.seed", step=step) for step in (step_by_rms, None)]
    return {"elements": sum(each.size for each in values.values()), "quantized": sizes[0], "exact": sizes[1]}


def _bytes_at(damage: float, points: list[tuple[int, float]]) -> float:
    """Return the bytes at a damage, on the line through two points in logarithms."""
    (x0, y0), (x1, y1) = ((math.log(size), math.log(max(value, FLOOR))) for size, value in points)
    if y0 == y1:
        return float(max(size for size, _ in points))
    return math.exp(x0 + (math.log(max(damage, FLOOR)) - y0) * (x1 - x0) / (y1 - y0))


def _scores(model: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logarithms of the shares that a model gives its classes."""
    from bench.public import onnx_run

    scores = np.asarray(onnx_run(model, threads=1)(feeds)[0], np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    found: np.ndarray = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return found


def _damage(seed: Seed, feeds: dict[str, np.ndarray], expected: np.ndarray) -> float:
    with seed.assembled() as folder:
        found = _scores(folder / MODEL_FILE, feeds)
    return float((np.exp(expected) * (expected - found)).sum(axis=-1).mean())


def _change(old: Any, new: Any) -> float:
    """Return by how much matrices changed, as a share of their root mean square."""
    pairs = [(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True) if a.ndim > 1]
    squares = [(float((b - a).detach().square().sum()), float(a.detach().square().sum())) for a, b in pairs]
    return math.sqrt(sum(moved for moved, _ in squares) / sum(whole for _, whole in squares))
