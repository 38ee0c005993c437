"""Measure how the default setting changes every public model's task score, and how other sizes change two of them.

Each model is exported without calibration data, assembled again, and scored by its own harness (bench/public)
beside the original. Scores of a few hundred samples vary by a percent by chance, so agreement, KL and cosine are
shown beside them. `--method lossless` must give outputs that are the same bit by bit on real inputs.
"""

from __future__ import annotations

from pathlib import Path

import seed_runtime
from bench import chart, measure, seeds
from bench.measure import Figures, Goal
from seed_exporter import loaders
from seed_exporter.pipeline import export
from seed_exporter.quantize import allocate
from seed_exporter.results import Options

TARGETS = {"minilm6": (6, 8, 12), "efflite0": (6, 8, 10)}
"""Ratios that are measured beside the default."""
LOSS = 0.01
"""Largest share of the original's score that a seed may lose."""
SAMPLES = {"magika": 400, "minilm6": 400, "pprec": 200, "smollm2": 12}
"""Number of samples, less than the harness's own where a whole score takes minutes."""
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
            subject = _Subject(name, folder, limit)
            row = {"model": name, **subject.point(Options()), "identical": subject.lossless_is_identical()}
            rows.append(row)
            goals += _goals(row)
            measure.say(f"{name}: {row['ratio']:g}x")
            if name in TARGETS:
                points = [subject.point(Options(target=float(target))) for target in TARGETS[name]]
                curves.append({"model": name, "points": [row, *points]})
    return {"rows": rows, "curves": curves, "goals": [goal.as_json() for goal in goals]}


def _goals(row: Figures) -> list[Goal]:
    original, candidate = row["compare"]["original"], row["compare"]["candidate"]
    change = (original - candidate) if row["compare"]["better"] == "higher" else (candidate - original)
    return [
        Goal(f"{row['model']}: score lost, of the original's", change / abs(original), LOSS, ""),
        Goal(f"{row['model']}: outputs of lossless identical", float(row["identical"]), 1, "", least=True),
    ]


class _Subject:
    """One model, whose original is scored once."""

    def __init__(self, name: str, folder: Path, limit: int | None) -> None:
        from bench.public import MODELS, cache_folder, onnx_run

        self._name, self._folder, self._limit = name, folder, limit
        self._model, self._cache = MODELS[name], cache_folder()
        self._source = self._model.prepare(self._cache)
        measure.note(f"quality: {name}: scoring the original")
        self._original = self._model.score(self._cache, onnx_run(self._source), limit)

    def point(self, options: Options) -> Figures:
        """Export a seed with these options, and return its size and score."""
        from bench.public import onnx_run

        wanted = f"{options.target:g}x" if options.target else "the default"
        measure.note(f"quality: {self._name} at {wanted}: exporting")
        result = export(self._source, output=self._folder / "model.seed", options=options)
        model = self._assembled(result.path)
        measure.note(f"quality: {self._name} at {wanted}: scoring")
        score = self._model.score(self._cache, onnx_run(model), self._limit)
        compared = self._model.compare(self._original, score)
        return {
            "target": options.target,
            "bytes": result.bytes,
            "ratio": measure.rounded(result.ratio),
            "bits_per_weight": measure.rounded(result.bits_per_weight),
            "compare": {key: measure.rounded(value) for key, value in compared.items()},
        }

    def lossless_is_identical(self) -> bool:
        """Return whether outputs on real inputs are, byte by byte, those of the original.

        It runs on one thread: with more, ONNX Runtime may add in another order from run to run.
        """
        from bench.public import onnx_run

        measure.note(f"quality: {self._name}: lossless")
        graph = loaders.load(self._source)
        made = seeds.make(graph, allocate.lossless(graph), self._folder / "exact.seed")
        first, second = onnx_run(self._source, threads=1), onnx_run(self._assembled(made.path), threads=1)
        return all(
            a.tobytes() == b.tobytes()
            for feeds in self._model.inputs(self._cache, REAL_INPUTS, "test")
            for a, b in zip(first(feeds), second(feeds), strict=True)
        )

    def _assembled(self, path: Path) -> Path:
        target = self._folder / "assembled"
        seed_runtime.open(path).assemble(target)
        return target / "model.onnx"


def distance(compared: Figures) -> str:
    """Return agreement, KL and the other measures of distance that the model's harness gives."""
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
        samples = curve["points"][0]["compare"]["n"]
        lines += ["", f"{curve['model']} at other sizes, {samples} samples:", ""]
        lines += ["| seed | ratio | bits/weight | original | seed's | beside it |", "|--:|--:|--:|--:|--:|---|"]
        for point in curve["points"]:
            compared = point["compare"]
            lines.append(
                f"| {point['bytes'] / 1e6:.3f} MB | {point['ratio']:.2f}x | {point['bits_per_weight']:.2f} "
                f"| {compared['original']:.4f} | {compared['candidate']:.4f} | {distance(compared)} |"
            )
    return lines


def charts(figures: Figures) -> dict[str, str]:
    """Draw the distance from the original over the ratio, for which the scores are too coarse."""
    series: dict[str, list[tuple[float, float]]] = {}
    for curve in figures["curves"]:
        measured = "cosine" if "cosine" in curve["points"][0]["compare"] else "agreement"
        series[f"{curve['model']}, {measured}"] = [
            (point["ratio"], point["compare"][measured]) for point in curve["points"]
        ]
    if not series:
        return {}
    across, up = chart.Axis("ratio", show="{:.1f}x".format), chart.Axis("likeness, 1 = the same", show="{:.3f}".format)
    return {"quality": chart.lines("Seed against original", series, across, up)}
