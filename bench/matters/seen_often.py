"""Settings of healing where few pictures are seen often: whether they are known by heart, and what mixing does then.

A small network learns Cyrillic letters and those Latin and Greek ones that look like them, and is healed on 1,000
pictures, which are turned, stretched, thickened and faded afresh for each step. Families of fonts that nothing is
trained on judge.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Figures

from . import training

TITLE = "Settings of healing where few pictures are seen often"
TEACHER_STEPS = 1500
STEPS, SIZE = 1000, 8000
"""Optimizer steps of a run, and bytes of the whole seed [B]."""

VARIANTS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("as it is", SIZE, {}),
    ("half of the inputs mixed", SIZE, {"mixed": 0.5}),
    ("24 KB, 600 steps", 3 * SIZE, {"steps": 600}),
    ("24 KB, 600 steps, half of the inputs mixed", 3 * SIZE, {"steps": 600, "mixed": 0.5}),
    ("24 KB, 600 steps, folded halfway", 3 * SIZE, {"steps": 600, "fold": 0.5}),
    ("24 KB, 600 steps, scores at a temperature of 1 in place of 2", 3 * SIZE, {"steps": 600, "temperature": 1.0}),
)
"""What each run is called, its size [B] and what it changes."""


def run(quick: bool, data: Path) -> Figures:
    """Heal the network with each variant."""
    import torch

    from seed_exporter.heal.settings import HealSettings

    from . import few_pictures, glyphs

    torch.set_num_threads(1)
    task, unseen = few_pictures.load(data)
    teacher = few_pictures.trained(task, 20 if quick else TEACHER_STEPS)
    graph = glyphs.graph_of(teacher)
    judged = glyphs.Task(task.train, unseen, task.classes)
    plain = HealSettings(steps=10 if quick else STEPS, looks=8, mixed=0.0, passes=0.0, estimate=30)
    runs = []
    for variant, size, changes in VARIANTS[: 2 if quick else None]:
        measure.say(f"seen_often: {variant}")
        settings = replace(plain, **(changes | ({"steps": plain.steps} if quick else {})))
        found = training.healed(graph, judged, settings, size=size, draw=few_pictures.Drawn(task, unseen))
        runs.append({"variant": variant, **found})
    return {
        "source": f"{task.classes} letters, {graph.parameters:,} parameters, {few_pictures.PICTURES:,} pictures, "
        f"{plain.steps:,} steps of {plain.batch}",
        "original": glyphs.quality(teacher, judged)["accuracy"],
        "n": len(unseen[0]),
        "runs": runs,
    }


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    record = records["seen_often"]
    return [
        (
            f"{record['source']} on a CPU, so that each picture is seen 32 times; the original, which was trained on "
            f"20 times as many, is right in {100 * record['original']:.1f} % of {record['n']:,} pictures of families "
            "that nothing was trained on. A standard error is 1.2 points."
        ),
        "",
        "| what is changed | bytes | quality |",
        "|---|--:|--:|",
        *(f"| {run['variant']} | {run['bytes']:,} | {run['quality']:.4f} |" for run in record["runs"]),
    ]


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw nothing: the table is short."""
    return {}
