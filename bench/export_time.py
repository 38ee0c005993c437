"""Measure an export without calibration on two cores: encoding at fixed steps, and search with self-check.

Encoding is the work of `seed-export` once it knows every step: quantize, class, code, build and write the file.
Its figure is the shortest of three times on the clock, because other processes can only add to it. The rest is timed
once.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench import measure, seeds, synthetic
from bench.measure import Figures, Goal
from seed_exporter import loaders
from seed_exporter.build import draft
from seed_exporter.build.streams import encode
from seed_exporter.graph.model import Graph
from seed_exporter.pipeline import export

CORES = 2
COARSENESS = 0.45
ENCODE_S, ENCODE_S_PER_M = 3.0, 0.1
SEARCH_S_PER_M = 1.0
SEARCHED = ("minilm6", "efflite0", "pprec", "magika")
SEARCH_STEPS = ("reference", "search", "check", "write")
"""All that is neither loading, nor the last encoding, nor the measurement of sessions' memory, which is shown apart."""


def run(quick: bool = False) -> Figures:
    rows: list[Figures] = []
    goals: list[Goal] = []
    tries = 1 if quick else 3
    shown = {"resnet50": ("ResNet-50's shapes", synthetic.resnet50)}
    if not quick:
        shown["gpt2"] = ("GPT-2's shapes", synthetic.gpt2)
    with measure.scratch() as folder:
        for title, make in shown.values():
            measure.note(f"export time: {title}")
            rows.append(_encoded(title, make(), folder, tries))
        rows += [_exported(name, folder, tries) for name in (SEARCHED[2:] if quick else SEARCHED)]
    for row in rows:
        millions = row["parameters"] / 1e6
        allowed = ENCODE_S + ENCODE_S_PER_M * millions
        goals.append(Goal(f"{row['title']}: encoding", row["encode_s"], measure.rounded(allowed), "s"))
        if "search_s" in row:
            goals.append(
                Goal(f"{row['title']}: search and self-check", row["search_s"] / millions, SEARCH_S_PER_M, "s/M")
            )
    return {"rows": rows, "goals": [goal.as_json() for goal in goals], "load": measure.load()}


def _encoded(title: str, graph: Graph, folder: Path, tries: int) -> Figures:
    plans = seeds.plans_at(graph, COARSENESS)
    model = seeds.model_of("bench", graph)
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        streams = encode(graph, plans, jobs=CORES)
        draft.build(graph, streams, model).write(folder / "bench.seed")
        seconds.append(time.perf_counter() - start)
    return {
        "title": title,
        "parameters": graph.parameters,
        "encode_s": measure.rounded(min(seconds)),
        "encode_s_per_m": measure.rounded(min(seconds) / graph.parameters * 1e6),
    }


def _exported(name: str, folder: Path, tries: int) -> Figures:
    from bench.public import MODELS, cache_folder

    measure.note(f"export time: {name}")
    source = MODELS[name].prepare(cache_folder())
    row = _encoded(name, loaders.load(source), folder, tries)
    spent = export(source, output=folder / "bench.seed").seconds
    search = sum(spent.get(step, 0.0) for step in SEARCH_STEPS)
    steps = {step: measure.rounded(seconds) for step, seconds in spent.items()}
    return row | {"search_s": measure.rounded(search), "steps": steps}


def table(figures: Figures) -> list[str]:
    lines = [
        "| model | parameters | encoding | per million | search and self-check | per million | sessions' memory |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        millions = row["parameters"] / 1e6
        apart = "| | | |"
        if "search_s" in row:
            apart = (
                f"| {row['search_s']:.1f} s | {row['search_s'] / millions:.2f} s | {row['steps']['footprint']:.1f} s |"
            )
        lines.append(
            f"| {row['title']} | {millions:.2f} M | {row['encode_s']:.2f} s | **{row['encode_s_per_m']:.3f} s** {apart}"
        )
    return lines
