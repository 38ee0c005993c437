"""A small classifier of characters that a CPU trains in two minutes, for measurements that need fine-tuning.

The data are those of the claims (`python -m bench.claims.data glyphs --out DIR`): characters in fonts, held-out fonts
of other packages and families. Of one script family, a hundred classes are taken, at 24 x 24 pixels.
"""

from __future__ import annotations

import copy
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import publish
from bench.claims.data.files import read_arrays
from bench.claims.inputs import unpacked
from bench.onnx_export import export_onnx
from bench.public.metrics import agreement, kl, softmax
from seed_exporter import loaders
from seed_exporter.graph.model import Graph

EUROPEAN, IDEOGRAPHS = ("LATIN", "GREEK", "CYRILLIC"), ("CJK",)
"""First words of the Unicode names of a script family's characters."""
CLASSES, SIDE, BATCH = 100, 24, 128
TEACHER_STEPS, TUNE_STEPS = 1500, 200
SHORT_STEPS = 500
"""Of a teacher where several networks are trained as long as it."""
KEPT = publish.RESULTS / "matters" / "european.pt"
"""Where a teacher of SHORT_STEPS stays, which two topics need."""
TEACHER_RATE, TUNE_RATE = 3e-3, 1e-3
WIDTHS = (32, 64, 128, 128)


@dataclass(frozen=True)
class Task:
    """Pictures `(n, 1, 24, 24)` in [0, 1] and their classes, to train on and held out."""

    train: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    classes: int


def load(folder: Path, scripts: tuple[str, ...], classes: int = CLASSES) -> Task:
    """Read the classes of a script family, evenly spread over it.

    Raises:
        FileNotFoundError: the data aren't there.
    """
    points = read_arrays(folder / "glyphs-train.npz.xz")["classes"]
    found = [index for index, point in enumerate(points) if _script(int(point)) in scripts]
    return load_classes(
        folder, np.array(found)[np.linspace(0, len(found) - 1, min(classes, len(found))).round().astype(int)]
    )


def load_classes(folder: Path, chosen: np.ndarray) -> Task:
    """Read some classes, by their numbers in ascending order.

    Raises:
        FileNotFoundError: the data aren't there.
    """
    train, held = (part_of(read_arrays(folder / f"glyphs-{side}.npz.xz"), chosen) for side in ("train", "held"))
    return Task(train, held, len(chosen))


def network(classes: int, rng_seed: int = 0) -> nn.Sequential:
    """Return four convolutions with batch norms and a classifier, random weights: 253 thousand for 100 classes."""
    torch.manual_seed(rng_seed)
    layers, inputs = [], 1
    for outputs, stride in zip(WIDTHS, (2, 2, 1, 2), strict=True):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def train(
    model: nn.Module, task: Task, steps: int, rate: float, rng_seed: int = 0, only: Tensor | None = None
) -> nn.Module:
    """Train by labels, in place: AdamW, its rate rising over 20 steps and falling to 0, pictures moved by 2 pixels.

    Args:
        model: left evaluating.
        task: what it learns.
        steps: batches of 128.
        rate: the highest.
        rng_seed: of batches and moves.
        only: classes whose pictures are taken; all by default.
    """
    rng = torch.Generator().manual_seed(rng_seed)
    images, labels = task.train
    if only is not None:
        rows = torch.isin(labels, only)
        images, labels = images[rows], torch.searchsorted(only, labels[rows])
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 20, 1 - step / steps)
        rows = torch.randint(len(images), (BATCH,), generator=rng)
        down, right = torch.randint(-2, 3, (2,), generator=rng).tolist()
        moved = torch.roll(images[rows], (down, right), (2, 3))
        loss = nn.functional.cross_entropy(model(moved), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def teacher(task: Task, steps: int, kept: Path | None = None) -> nn.Module:
    """Return a network trained from random weights; with `kept`, the one in that file, or it is written there."""
    model = network(task.classes)
    if kept is not None and kept.is_file():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model.eval()
    train(model, task, steps, TEACHER_RATE)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), kept)
    return model


def tuned(model: nn.Module, task: Task, steps: int) -> nn.Module:
    """Return a copy with the brief fine-tune that all starts get."""
    return train(copy.deepcopy(model), task, steps, TUNE_RATE, rng_seed=1)


def logits(model: nn.Module, task: Task) -> np.ndarray:
    """Return the answers to all held-out pictures, `(n, classes)`."""
    with torch.no_grad():
        parts = [model.eval()(part) for part in task.held[0].split(500)]
    return np.asarray(torch.cat(parts).numpy())


def quality(model: nn.Module, task: Task, reference: np.ndarray | None = None) -> dict[str, float]:
    """Return held-out accuracy, and agreement and KL with a reference's answers."""
    answers = logits(model, task)
    found = {"accuracy": float(np.mean(answers.argmax(1) == task.held[1].numpy()))}
    if reference is not None:
        found |= {"agreement": agreement(reference, answers), "kl": kl(softmax(reference), softmax(answers))}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def write_onnx(model: nn.Module, path: Path) -> Path:
    """Write the network as an ONNX file, batch norms kept, with weights named as in torch; return its path."""
    example = {"image": torch.zeros(2, 1, SIDE, SIDE)}
    export_onnx(model, example, {"image": ("batch", None, None, None)}, "logits", path, keep_batch_norm=True)
    torch.set_num_threads(1)  # it sets two
    return path


def graph_of(model: nn.Module) -> Graph:
    """Return the network as the exporter sees it: weights have the names that they have in torch."""
    with tempfile.TemporaryDirectory() as folder:
        graph = loaders.load(write_onnx(model, Path(folder) / "model.onnx"))
        # Weights are mapped from a folder that goes away.
        held = {name: weight.data.copy() for name, weight in graph.weights.items()}
    return graph_with(graph, held)


def graph_with(graph: Graph, data: Mapping[str, np.ndarray]) -> Graph:
    """Return the graph with other numbers in some of its weights."""
    weights = {name: replace(weight, data=data.get(name, weight.data)) for name, weight in graph.weights.items()}
    return replace(graph, weights=weights)


def with_weights(model: nn.Module, data: Mapping[str, np.ndarray]) -> nn.Module:
    """Return a copy of a network with some of its weights replaced."""
    changed = copy.deepcopy(model)
    state: dict[str, Any] = changed.state_dict()
    changed.load_state_dict(state | {name: torch.from_numpy(np.array(values)) for name, values in data.items()})
    return changed.eval()


def _script(point: int) -> str:
    return unicodedata.name(chr(point), "?").split()[0]


def part_of(arrays: Mapping[str, np.ndarray], chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    rows = np.isin(arrays["y"], chosen)
    small = shrunk(unpacked(arrays["x"][rows]))
    labels = np.searchsorted(chosen, arrays["y"][rows])
    return torch.from_numpy(small[:, None]), torch.from_numpy(labels.astype(np.int64))


def shrunk(pictures: np.ndarray) -> np.ndarray:
    """Return `(..., 24, 24)` in [0, 1] of pictures `(..., 48, 48)` of 16 greys."""
    ink = pictures.astype(np.float32) / 15
    halves = ink.reshape(*ink.shape[:-2], SIDE, 2, SIDE, 2)
    return np.asarray(halves.mean((-3, -1)), np.float32)
