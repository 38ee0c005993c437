"""Draw README's chart of sizes out of the published records: `python -m bench.front`.

Nothing is measured here: bytes at equal damage come from the benchmark `size`, and those of the fp32 weights from the
benchmark `quality`, whose ratios refer to them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import chart

DOCS = Path(__file__).resolve().parents[1] / "docs"
CHART = DOCS / "front" / "size.svg"
METHODS = ("NNCodec", "seed, no data", "seed, calibrated")
NAMES = {
    "magika": "Magika",
    "efflite0": "EfficientNet-lite0",
    "pprec": "PP-OCRv4 recognition",
    "minilm6": "MiniLM-L6",
    "ppcls": "PP-OCRv4 direction",
    "basicpitch": "Basic Pitch",
}


def size_chart(size: dict[str, Any], quality: dict[str, Any]) -> str:
    """Draw what is left of the fp32 weights at equal damage, for each model and method.

    Args:
        size: the record of the benchmark `size`.
        quality: the record of the benchmark `quality`.
    """
    weights = {row["model"]: row["bytes"] * row["ratio"] for row in quality["figures"]["rows"]}
    groups = {}
    for model in size["figures"]["models"]:
        sizes = {row["method"]: row["bytes"] for row in model["rows"]}
        name = model["model"]
        groups[NAMES[name]] = {method: 100 * sizes[method] / weights[name] for method in METHODS}
    return chart.bars("Whole files at equal damage, % of the fp32 weights", groups, "%")


def drawn() -> str:
    """Draw the chart of the records in docs/benchmarks."""
    size, quality = (json.loads((DOCS / "benchmarks" / f"{name}.json").read_text()) for name in ("size", "quality"))
    return size_chart(size, quality)


if __name__ == "__main__":
    CHART.write_text(drawn())
