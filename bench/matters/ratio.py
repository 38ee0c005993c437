"""Ratio against quality on public models: seeds, the published method, int8, pruning, gzip.

Bytes are of whole files, the graph included, damage is what bench/size.py takes: the KL, or 1 - the cosine, between a
candidate's answers and the original's on the test inputs. Nothing was chosen by these.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import chart, measure
from bench.measure import Figures
from seed_exporter.comparison.own import own_seeds
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.peers import PEERS, Deliverable, PeerError
from seed_exporter.peers.base import single_file
from seed_exporter.report import frontier
from seed_exporter.results import Options

TITLE = "Ratio against quality, model by model"
MODELS = ("ppcls", "magika", "efflite0", "minilm6")
TITLES = {
    "ppcls": "PP-OCR direction (CNN)", "magika": "Magika (dense layers)", "efflite0": "EfficientNet-lite0 (CNN)",
    "minilm6": "MiniLM-L6 (transformer)",
}  # fmt: skip
PRUNED = (0.5, 0.8, 0.9)
"""Shares of each matrix that are set to 0, the smallest first."""
RATIOS = {"ppcls": (8, 16, 32), "magika": (8, 16, 32), "efflite0": (8, 16), "minilm6": (8, 16)}
"""Of seeds and of the published method."""
CALIBRATED_MODELS = ("ppcls", "magika")
"""Models of which calibrated seeds are made: those of the larger ones take minutes each, and `bench size` has them."""
INT8 = "ORT int8, dynamic"
SEED, CALIBRATED, PUBLISHED = "seed, no data", "seed, calibrated", "published method"


def run(quick: bool, data: Path) -> Figures:
    """Measure all models."""
    from bench.size import CALIBRATED as OWN_CALIBRATED
    from bench.size import DATA_FREE, Subject, code_of

    code = code_of("exporter", "runtime")
    models = []
    for name in MODELS[: 1 if quick else None]:
        with Subject(name, quick) as subject:
            whole, original = subject.graph.distinct_bytes, subject.original
            rows: list[Figures] = []

            def add(method: str, setting: str, make: Callable[[], Any], rows: list[Figures] = rows) -> None:
                try:
                    point = make()
                except PeerError as error:
                    rows.append({"method": method, "setting": setting, "reason": str(error)})
                    return
                rows.append({"method": method, "setting": setting, "bytes": point.size, **_quality(point.figures)})

            def made(method: str, setting: str, make: Any, subject: Any = subject, add: Any = add) -> None:
                add(method, setting, lambda: subject.point(method, setting, code, make))

            exact = {"score": measure.rounded(original["value"]), "agreement": 1.0, "damage": 0.0}
            with measure.scratch() as folder:
                size = _gzipped(subject.graph, folder).size
            rows.append({"method": "gzip", "setting": "-9", "bytes": size, **exact})
            for share in PRUNED[:1] if quick else PRUNED:
                made("pruned, gzip", f"{share:.0%}", partial(_pruned, subject.graph, share))
            made(f"{INT8}, gzip", "", partial(_int8, subject.graph))
            for ratio in RATIOS[name][: 1 if quick else None]:
                size = round(whole / ratio)
                made(PUBLISHED, f"{ratio}x", partial(_published, subject.path, size))
                add(SEED, f"{ratio}x", partial(subject.own_point, DATA_FREE, size))
            for ratio in RATIOS[name] if name in CALIBRATED_MODELS and not quick else ():
                add(CALIBRATED, f"{ratio}x", partial(subject.own_point, OWN_CALIBRATED, round(whole / ratio)))
            models.append({
                "model": name, "damage": subject.damage_name, "bytes": whole, "parameters": subject.graph.parameters,
                "metric": original["metric"], "original": measure.rounded(original["value"]), "n": original["n"],
                "rows": rows,
            })  # fmt: skip
    return {"models": models}


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    lines = [
        "Each row is a whole file, compared with the fp32 weights.",
        (
            "gzip loses nothing; pruning sets the smallest weights of each matrix to 0, without training; int8 is ONNX "
            "Runtime's dynamic quantization; seeds are made without data and with 64 calibration inputs of another "
            "source than the test inputs, the published method as `--method moments` makes it, with nothing fine-tuned."
        ),
        "A ratio that a method can't reach is left out of the drawings.",
    ]
    for model in records["ratio"]["models"]:
        lines += [
            "",
            f"### {TITLES[model['model']]}, {model['parameters'] / 1e6:.2f} million parameters",
            "",
            f"{model['metric']} of the original: {model['original']:.4f}, n = {model['n']}.",
            "",
            f"| method | whole file [B] | ratio | {model['metric']} | agreement | {model['damage']} |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for row in model["rows"]:
            title = f"{row['method']} {row['setting']}".strip()
            if "reason" in row:
                lines.append(f"| {title} | {row['reason'].replace('|', '/')} | | | | |")
                continue
            lines.append(
                f"| {title} | {row['bytes']:,} | {model['bytes'] / row['bytes']:.1f}x | {row['score']:.4f} "
                f"| {row['agreement']:.3f} | {row['damage']:.3g} |"
            )
        lines += ["", f"![ratio-{model['model']}](what-matters/ratio-{model['model']}.svg)"]
    measured = {model["model"] for model in records["ratio"]["models"]}
    missing = [TITLES[name] for name in MODELS if name not in measured]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    return lines


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw bytes and damage of each model, and agreement over the ratio of all models in one drawing."""
    drawn, series = {}, {}
    for model in records["ratio"]["models"]:
        rows = [row for row in model["rows"] if "bytes" in row]
        points = [frontier.Point(row["method"], row["bytes"], row["damage"]) for row in rows]
        drawn[f"ratio-{model['model']}"] = frontier.frontier(points, measure=model["damage"])
        for method, name in ((CALIBRATED, "calibrated"), (PUBLISHED, "published")):
            kept = [(model["bytes"] / row["bytes"], row["agreement"]) for row in rows if row["method"] == method]
            if kept:
                series[f"{model['model']}, {name}"] = sorted(kept)
    across = chart.Axis("ratio", logarithmic=True, show="{:g}x".format)
    up = chart.Axis("agreement with the original", show="{:.2f}".format)
    return {"ratio-agreement": chart.lines("Agreement of seeds with their originals", series, across, up)} | drawn


def _quality(figures: Figures) -> Figures:
    return {key: measure.rounded(figures[key]) for key in ("damage", "score", "agreement")}


def _zipped(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 9, mtime=0))


def _gzipped(graph: Any, folder: Path) -> Deliverable:
    path = single_file(graph, folder)
    return Deliverable(_zipped(path), path)


def _pruned(graph: Any, share: float, folder: Path) -> Deliverable:
    weights = dict(graph.weights)
    for name, weight in weights.items():
        if kind_of(weight) is Kind.MATRIX:
            magnitudes = np.abs(weight.data)
            data = np.where(magnitudes <= np.quantile(magnitudes, share), 0, weight.data).astype(weight.data.dtype)
            weights[name] = replace(weight, data=data)
    return _gzipped(replace(graph, weights=weights), folder)


def _int8(graph: Any, folder: Path) -> Deliverable:
    made = PEERS[INT8].make(graph, (), folder, 0)
    return Deliverable(_zipped(made.model), made.model)


def _published(source: Path, size: int, folder: Path) -> Deliverable:
    """Make the published method's seed of a size.

    Raises:
        PeerError: its mean rows alone are larger.
    """
    with own_seeds(source, Options(method="moments")) as seeds:
        made = seeds.make(size, folder)
    if made.size > size:
        raise PeerError(f"without a component it takes {made.size:,} bytes")
    return made
