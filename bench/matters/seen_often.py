"""Settings of healing where few pictures are seen often: whether they are known by heart, and what mixing does then.

A small network learns Cyrillic letters and those Latin and Greek ones that look like them, and is healed on 1,000
pictures, which are turned, stretched, thickened and faded afresh for each step. Families of fonts that nothing is
trained on judge.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import measure
from bench.claims.data.files import read_arrays
from bench.claims.data.splitting import held_out
from bench.measure import Figures

from . import glyphs, training

TITLE = "Settings of healing where few pictures are seen often"
SIDE, WIDTHS = glyphs.SIDE, (24, 48, 96, 96)
TEACHER_STEPS, TEACHER_BATCH = 1500, 128
STEPS, SIZE = 1000, 8000
"""Optimizer steps of a run, and bytes of the whole seed [B]."""
PICTURES, JUDGES = 1000, 200
"""Pictures that are trained on, and pictures of other families that judge states."""

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
    from seed_exporter.heal.settings import HealSettings

    torch.set_num_threads(1)
    task, unseen = load(data)
    teacher = trained(task, 20 if quick else TEACHER_STEPS)
    graph = glyphs.graph_of(teacher)
    judged = glyphs.Task(task.train, unseen, task.classes)
    plain = HealSettings(steps=10 if quick else STEPS, looks=8, mixed=0.0, passes=0.0, estimate=30)
    runs = []
    for variant, size, changes in VARIANTS[: 2 if quick else None]:
        measure.say(f"seen_often: {variant}")
        settings = replace(plain, **(changes | ({"steps": plain.steps} if quick else {})))
        found = training.healed(graph, judged, settings, size=size, draw=Drawn(task, unseen))
        runs.append({"variant": variant, **found})
    return {
        "source": f"{task.classes} letters, {graph.parameters:,} parameters, {PICTURES:,} pictures, {plain.steps:,} "
        f"steps of {plain.batch}",
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


def load(folder: Path) -> tuple[glyphs.Task, tuple[Tensor, Tensor]]:
    """Read the letters; return them, and those of an eighth of the training side's packages, which aren't in them.

    Raises:
        FileNotFoundError: the data aren't there.
    """
    train, held = (read_arrays(folder / f"glyphs-{side}.npz.xz") for side in ("train", "held"))
    scripts = [unicodedata.name(chr(int(point)), "?").split()[0] for point in train["classes"]]
    latin = [index for index, script in enumerate(scripts) if script == "LATIN" and train["classes"][index] < 0x180]
    cyrillic, greek = ([i for i, script in enumerate(scripts) if script == word] for word in ("CYRILLIC", "GREEK"))
    chosen = np.array(sorted(cyrillic + latin[:52] + greek[::2]))
    packages = [line.split("\t")[0] for line in str(train["fonts"]).split("\n")]
    apart = np.array([held_out(package, "unseen", 8) for package in packages])[train["font"]]
    parts = [
        {"x": train["x"][~apart], "y": train["y"][~apart]}, {"x": train["x"][apart], "y": train["y"][apart]}, held,
    ]  # fmt: skip
    seen, unseen, others = (glyphs.part_of(arrays, chosen) for arrays in parts)
    return glyphs.Task(seen, others, len(chosen)), unseen


def network(classes: int) -> nn.Sequential:
    """Return four convolutions with batch norms and a classifier, random weights: 150 thousand for 147 classes."""
    torch.manual_seed(0)
    layers, inputs = [], 1
    for outputs, stride in zip(WIDTHS, (2, 2, 1, 2), strict=True):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def trained(task: glyphs.Task, steps: int) -> nn.Module:
    """Train the network by labels with augmented pictures."""
    model, rng = network(task.classes), torch.Generator().manual_seed(7)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min((step + 1) / 50, 0.5 * (1 + np.cos(np.pi * step / steps)) + 1e-3)
        rows = torch.randint(len(task.train[0]), (TEACHER_BATCH,), generator=rng)
        scores = model(augmented(task.train[0][rows], rng))
        loss = nn.functional.cross_entropy(scores, task.train[1][rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def augmented(ink: Tensor, rng: torch.Generator) -> Tensor:
    """Turn, stretch, shear, move, thicken or thin, fade, add noise. `ink` `(n, 1, 24, 24)`."""
    count = len(ink)

    def uniform(most: float) -> Tensor:
        return (torch.rand(count, generator=rng) * 2 - 1) * most

    def share() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=rng)

    turn, wide, high = uniform(0.2), uniform(0.2).exp(), uniform(0.2).exp()
    across = torch.stack([turn.cos() * wide, -turn.sin() * high + uniform(0.25), uniform(0.12)], 1)
    down = torch.stack([turn.sin() * wide, turn.cos() * high, uniform(0.12)], 1)
    grid = nn.functional.affine_grid(torch.stack([across, down], 1), [count, 1, SIDE, SIDE], align_corners=False)
    x = nn.functional.grid_sample(ink, grid, align_corners=False)
    kind, pool = share(), nn.functional.max_pool2d
    thin = -pool(-x, 2, 1, 1)[..., :SIDE, :SIDE]
    x = torch.where(kind < 0.12, pool(x, 2, 1, 1)[..., :SIDE, :SIDE], torch.where(kind < 0.22, thin, x))
    return x * (1 - 0.3 * share()) + 0.06 * torch.randn(x.shape, generator=rng) * share()


class Drawn:
    """Draws some pictures of a task, augmented; others judge.

    Args:
        task: whose pictures are taken.
        unseen: pictures of which some judge.
    """

    def __init__(self, task: glyphs.Task, unseen: tuple[Tensor, Tensor]) -> None:
        self._rng = torch.Generator().manual_seed(7)
        self._images, self._labels = task.train
        self._pool = torch.randperm(len(self._images), generator=torch.Generator().manual_seed(3))[:PICTURES]
        order = torch.randperm(len(unseen[0]), generator=torch.Generator().manual_seed(1))
        self.judges = unseen[0][order[:JUDGES]]

    def __call__(self, count: int) -> dict[str, Tensor]:
        """Return so many pictures and their labels."""
        rows = self._pool[torch.randint(len(self._pool), (count,), generator=self._rng)]
        return {"image": augmented(self._images[rows], self._rng), "labels": self._labels[rows]}
