"""Measure what devices hold and run by `--dtype`: bytes, memory, latency, scores, and the time of assembling.

A table is made of parts, each a module with `run(quick)` and `table(figures)`, in PARTS. Each model is exported at
RATIO by every dtype, its seed assembled, and scored by its own harness (bench/public) beside the original and beside
ONNX Runtime's own quantizers. Latency is processor time on one thread, in rounds that take turns.
"""

from __future__ import annotations

import importlib
from typing import Final

from bench import measure
from bench.measure import Figures

PARTS: Final = ("target_models", "target_assembly")
"""Modules of bench/ whose figures make the page, in order."""


def run(quick: bool = False) -> Figures:
    figures: Figures = {}
    goals: list[Figures] = []
    for name in PARTS:
        measure.say(f"targets: {name}")
        part = importlib.import_module(f"bench.{name}").run(quick)
        goals += part.pop("goals", [])
        figures[name] = part
    return {**figures, "goals": goals}


def table(figures: Figures) -> list[str]:
    lines: list[str] = []
    for name in PARTS:
        lines += [*importlib.import_module(f"bench.{name}").table(figures[name]), ""]
    return lines[:-1]
