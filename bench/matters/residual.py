"""Settings of healing on a deep network, one changed at a time: what a long run on a GPU can't be repeated for.

A residual network of bottlenecks learns the 100 characters of `glyphs`, and is healed at some 245x in 1,000 steps of 32
pictures, which are moved afresh for each step. Settings are those before the change that the table led to.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Figures

from . import training

TITLE = "Settings of healing on a deep network"
STEPS, SIZE = 1000, 9_000
"""Optimizer steps of a run, and bytes of the whole seed [B]."""
TEACHER_STEPS = 350
JUDGES = 300
"""Pictures of the training fonts that judge states and aren't trained on."""
STAGES = ((24, 3, 1), (48, 4, 2), (72, 3, 2))
"""Width, blocks and stride of each stage."""

VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("half of the inputs mixed, folded halfway", {"passes": 0.0, "fold": 0.5}),
    ("folded halfway", {"fold": 0.5}),
    ("folded at .75", {}),
    ("folded at .9", {"fold": 0.9}),
    ("the size reached at .35 in place of .5", {"descent": 0.35}),
    ("labels weigh 1 in place of .3", {"labelled": 1.0}),
    ("rate .06 in place of .03", {"unit_rate": 0.06}),
    ("rate .06, half of the inputs mixed", {"unit_rate": 0.06, "passes": 0.0}),
    ("rate .06, vectors' rates doubled", {"unit_rate": 0.06, "norm_rate": 0.004, "vector_rate": 0.1}),
    ("rate .12", {"unit_rate": 0.12}),
    ("rate .25", {"unit_rate": 0.25}),
    ("rate .04, 3,000 steps", {"unit_rate": 0.04, "steps": 3000}),
    ("rate .12, 3,000 steps", {"unit_rate": 0.12, "steps": 3000}),
)
"""What each run changes: inputs aren't mixed and batch norms are folded at .75 where nothing else is said."""


def run(quick: bool, data: Path) -> Figures:
    """Heal the network with each variant."""
    import torch

    from seed_exporter.heal.settings import HealSettings

    from . import glyphs

    torch.set_num_threads(1)
    task = glyphs.load(data, glyphs.EUROPEAN)
    teacher = glyphs.train(network(task.classes), task, 20 if quick else TEACHER_STEPS, glyphs.TEACHER_RATE)
    graph = glyphs.graph_of(teacher)
    plain = HealSettings(steps=10 if quick else STEPS, looks=20, estimate=30, travel=0.0, fold=0.75)
    runs = []
    for variant, changes in VARIANTS[: 2 if quick else None]:
        measure.say(f"residual: {variant}")
        settings = replace(plain, **(changes | ({"steps": plain.steps} if quick else {})))
        found = training.healed(graph, task, settings, size=SIZE, draw=Moved(task, JUDGES))
        runs.append({"variant": variant, **found})
    return {
        "source": f"{task.classes} characters, {graph.parameters:,} parameters, {plain.steps:,} steps of 32 pictures",
        "original": glyphs.quality(teacher, task)["accuracy"],
        "runs": runs,
    }


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    record = records["residual"]
    return [
        (
            f"{record['source']} on a CPU; the original is right in {100 * record['original']:.1f} %, and a "
            "standard error is at most .9 points. Where nothing else is said, no input is mixed with another one, "
            "batch norms are folded at .75 of the run, and the learning rate of weights is .03 quantization steps."
        ),
        "",
        "| what is changed | bytes | quality |",
        "|---|--:|--:|",
        *(f"| {run['variant']} | {run['bytes']:,} | {run['quality']:.4f} |" for run in record["runs"]),
        "",
        (
            "So batch norms are folded at .75 now, weights can move by 250 steps in a short run, and inputs "
            "are mixed only where each would be seen 20 times or more; the next section has such a run, and the table "
            "of third runs above long ones, in which students and BERT-tiny were better with half of the inputs mixed."
        ),
    ]


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw nothing: the table is short."""
    return {}


def network(classes: int) -> Any:
    """Return a residual network of ten bottlenecks, random weights: 550 thousand for 100 classes."""
    import torch
    from torch import nn

    from bench.claims.models.resnet50 import Bottleneck

    torch.manual_seed(0)
    layers: list[Any] = [nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    inputs = 32
    for width, blocks, stride in STAGES:
        for index in range(blocks):
            layers.append(Bottleneck(inputs, width, 1 if index else stride))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class Moved:
    """Draws pictures of a task, each batch moved by up to two pixels, and keeps some that judge.

    Args:
        task: whose pictures are taken.
        judges: how many judge.

    Attributes:
        judges: `(judges, 1, 24, 24)`; none of them is drawn.
    """

    def __init__(self, task: Any, judges: int) -> None:
        import torch

        self._rng = torch.Generator().manual_seed(7)
        images, labels = task.train
        order = torch.randperm(len(images), generator=self._rng)
        self.judges = images[order[:judges]]
        drawn = order[judges:].sort().values
        self._images, self._labels = images[drawn], labels[drawn]

    def __call__(self, count: int) -> dict[str, Any]:
        """Return so many pictures and their labels."""
        import torch

        rows = torch.randint(len(self._images), (count,), generator=self._rng)
        down, right = torch.randint(-2, 3, (2,), generator=self._rng).tolist()
        return {"image": torch.roll(self._images[rows], (down, right), (2, 3)), "labels": self._labels[rows]}
