"""Letters seen often: few pictures, augmented afresh for each step, and a small network that learns them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.claims.data.files import read_arrays
from bench.claims.data.splitting import held_out

from . import glyphs

SIDE, WIDTHS = glyphs.SIDE, (24, 48, 96, 96)
TEACHER_BATCH = 128
PICTURES, JUDGES = 1000, 200
"""Pictures that are trained on, and pictures of other families that judge states."""


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
