"""Measure what fitting vectors at export is worth: damage and score on inputs of other sources than the calibration.

Each model is searched once for a ratio; from that seed, its vectors are fitted as `--effort 5` does (means of channels)
and as `--effort 6` does (the original's answers, then means). Damage and score are those of the assembled seeds on the
`test` split, which shares no source with the calibration inputs (bench/public).
`python -m bench.tuned_export MODEL RATIO...` measures some alone, where a ratio may be `default`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench import measure
from bench.measure import Figures
from seed_exporter.evaluate import run as runs
from seed_exporter.records import Calibrated, Proven, Work
from seed_exporter.results import Options
from seed_exporter.stages.fitting import build_and_prove
from seed_exporter.stages.loading import calibrate, load
from seed_exporter.stages.tuning import tune_vectors
from seed_runtime.skeletons.onnx import MODEL_FILE

TITLE = "Vectors fitted at export"
RATIOS: dict[str, tuple[float | None, ...]] = {
    "ppcls": (None, 10, 15),
    "pprec": (None, 12),
    "efflite0": (None, 12),
    "magika": (None, 20),
}
"""Ratios of each model; None for the default."""
CALIBRATION = 128
"""Calibration inputs, of which a quarter judges."""
JUDGED = 128
"""Test inputs that damage is measured on."""
SAMPLES = {"magika": 200, "pprec": 200, "efflite0": 200}
"""Samples of a score, fewer than the harness's own where a whole score takes minutes."""
EFFORTS = (5, 6)


def run(*, quick: bool = False) -> Figures:
    """Measure all models, or with `quick` one of them at one ratio."""
    wanted = {"ppcls": (15.0,)} if quick else RATIOS
    rows = [row for name, ratios in wanted.items() for row in measured(name, ratios)]
    return {"rows": rows, "calibration": CALIBRATION, "judged": JUDGED, "goals": []}


def measured(name: str, ratios: tuple[float | None, ...]) -> list[Figures]:
    """Measure one model at some ratios."""
    with measure.scratch() as folder:
        subject = _Subject(name, folder)
        return [subject.row(ratio) for ratio in ratios]


def table(figures: Figures) -> list[str]:
    """Return a line for each seed."""
    lines = [
        "| model | ratio | vectors | kept | bytes | damage, judged inputs | other sources | score | original's | [s] |",
        "|---|--:|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        for side in row["sides"]:
            effort = side["effort"]
            what = "as searched" if effort is None else f"`--effort {effort}`"
            lines.append(
                f"| {row['model']} | {row['ratio']:.1f}x | {what} | {', '.join(side['kept']) or '-'} "
                f"| {side['bytes']:,} | {side['judged']:.3g} | {side['test']:.3g} | {side['score']:.4g} "
                f"| {row['original']:.4g} | {side['seconds']:.0f} |"
            )
    return lines


class _Subject:
    """One model with its inputs, and the original's answers and score."""

    def __init__(self, name: str, folder: Path) -> None:
        from bench.public import MODELS, cache_folder, onnx_run

        self._name, self._folder, self._model, self._cache = name, folder, MODELS[name], cache_folder()
        self._source, self._limit = self._model.prepare(self._cache), SAMPLES.get(name)
        calibration = self._model.inputs(self._cache, CALIBRATION, "calib")
        self._calib = folder / "calib.npz"
        arrays: dict[str, Any] = {key: np.concatenate([feed[key] for feed in calibration]) for key in calibration[0]}
        np.savez(self._calib, **arrays)
        self._feeds = self._model.inputs(self._cache, JUDGED, "test")
        self._score = self._model.score(self._cache, onnx_run(self._source), self._limit)["value"]

    def row(self, ratio: float | None) -> Figures:
        """Export at a ratio, and fit the vectors of that seed at each effort."""
        options = Options(target=ratio, calib=self._calib)
        work = Work(options, self._subfolder(f"{ratio}"), lambda *args: None)
        with threadpool_limits(1, "blas"):
            start = time.perf_counter()
            calibrated = calibrate(load(self._source, work), work)
            proven = build_and_prove(calibrated, work)
            seconds = time.perf_counter() - start
            original = work.folder / "original"
            expected = runs.run_all(original, self._feeds)
            sides = [self._side(proven, calibrated, work, expected, None, seconds)]
            for effort in EFFORTS:
                own = replace(work, options=replace(options, effort=effort), seconds=dict(work.seconds))
                start = time.perf_counter()
                tuned = tune_vectors(proven, calibrated, own)
                spent = time.perf_counter() - start
                sides.append(self._side(tuned, calibrated, own, expected, effort, spent))
        row = {
            "model": self._name,
            "target": ratio,
            "ratio": calibrated.source.ratio(proven.draft.size),
            "metric": calibrated.source.metric(options).name,
            "original": self._score,
            "sides": sides,
        }
        for line in table({"rows": [row]})[2:]:
            measure.say(line)
        return row

    def _side(
        self, proven: Proven, calibrated: Calibrated, work: Work, expected: Any, effort: int | None, seconds: float
    ) -> Figures:
        """Assemble a seed as a device does, and measure it."""
        from bench.public import onnx_run

        folder = self._subfolder("side")
        proven.draft.assemble(folder)
        metric = calibrated.source.metric(work.options)
        test = metric.damage(expected, runs.run_all(folder, self._feeds), self._feeds)
        tiers = proven.tuning.tiers if proven.tuning else ()
        return {
            "effort": effort,
            "kept": [tier.name for tier in tiers if tier.is_kept],
            "tiers": proven.tuning.as_json() if proven.tuning else None,
            "bytes": proven.draft.size,
            "judged": proven.judgement.damage,
            "test": test,
            "score": self._model.score(self._cache, onnx_run(folder / MODEL_FILE), self._limit)["value"],
            "seconds": seconds,
        }

    def _subfolder(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(exist_ok=True)
        return path


if __name__ == "__main__":
    given = tuple(None if text == "default" else float(text) for text in sys.argv[2:])
    print("\n".join(table({"rows": measured(sys.argv[1], given)})))
