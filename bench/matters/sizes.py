"""Ratio against model size, convolutions beside transformers, each at equal retention: from records of other topics."""

from __future__ import annotations

import json

from bench import chart
from bench.measure import Figures

from .records import DOCS

TITLE = "Ratio against model size, CNN against transformer"
KINDS = {
    "ppcls": "CNN", "efflite0": "CNN", "basicpitch": "CNN", "magika": "dense", "pprec": "CNN with attention",
    "minilm6": "transformer",
}  # fmt: skip
PUBLISHED = (
    ("BERT-tiny", "transformer", 4.4e6, 106), ("DistilBERT", "transformer", 66e6, 76),
    ("GPT-2 small", "transformer", 124e6, 147), ("MobileNetV2", "CNN", 3.5e6, 152), ("ResNet-50", "CNN", 25e6, 1756),
)  # fmt: skip
"""The published table: parameters and ratios, with the function lost."""


def points(records: dict[str, Figures]) -> list[Figures]:
    """Return all ratios with what is kept there."""
    size, lossless = (json.loads((DOCS / f"benchmarks/{name}.json").read_text()) for name in ("size", "lossless"))
    weights = {row["model"]: row["bytes"] for row in lossless["figures"]["rows"] if row["kind"] == "as it is"}
    found = []
    for model in size["figures"]["models"]:
        (row,) = (row for row in model["rows"] if row["method"] == "seed, calibrated")
        name = model["model"]
        found.append({
            "model": name, "kind": KINDS[name], "parameters": weights[name] / 4,
            "ratio": weights[name] / row["bytes"], "how": "calibrated",
            "kept": f"{model['damage']} {model['line']:g}",
        })  # fmt: skip
    trials = records["trials"]
    for row in trials["healed"]:
        kept = f"{row['kept'][0]:g} % of the accuracy"
        found.append(
            {**{key: row[key] for key in ("model", "kind", "parameters", "ratio")}, "how": "healed", "kept": kept}
        )
    language = trials["perplexity"]
    ratio, growth = language["points"][-1]
    about = {key: language[key] for key in ("model", "kind", "parameters")}
    found.append({**about, "ratio": ratio, "how": "healed", "kept": f"{growth:g} times the perplexity"})
    for model, kind, parameters, ratio in PUBLISHED:
        found.append({
            "model": model, "kind": kind, "parameters": parameters, "ratio": ratio, "how": "published",
            "kept": "the function is lost",
        })  # fmt: skip
    return found


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    found = points(records)
    lines = [
        (
            "Calibrated seeds at the damage of [the size benchmark](benchmarks.md#size), healed weights of the trials, "
            "and the published table."
        ),
        "",
        "| model | kind | parameters | ratio | kept | how |",
        "|---|---|--:|--:|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['kind']} | {row['parameters'] / 1e6:.3g} M | {row['ratio']:,.0f}x | {row['kept']} "
        f"| {row['how']} |"
        for row in found
    ]
    return [
        *lines,
        "",
        (
            "Without training, the ratio hardly depends on the size: between 36 thousand and 23 million parameters it "
            "is 7 to 19."
        ),
        (
            "Healed, it grows with how much too large the network is for its task, and CNN or transformer decides "
            "little: MobileNetV2 and BERT-tiny have 161x and 224x, ResNet-50 and DistilBERT 1,967x and 670x."
        ),
    ]


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw ratios over parameters."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in points(records):
        kind = row["kind"] if row["how"] != "calibrated" or row["kind"] in ("CNN", "transformer") else "other"
        series.setdefault(f"{row['how']}, {kind}", []).append((row["parameters"] / 1e6, row["ratio"]))
    across = chart.Axis("parameters [million]", logarithmic=True, show="{:g}".format)
    up = chart.Axis("ratio", logarithmic=True, show="{:g}x".format)
    return {"sizes": chart.lines("Ratio against model size", series, across, up, joined=False)}
