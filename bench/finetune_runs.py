"""One fine-tune of a seed, judged on held-out fonts, and steps beside torch's; for bench/finetune.py."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import seed_runtime
from bench import measure
from bench.measure import Figures
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.format.parts import TRAINING
from seed_runtime.seed import Seed
from seed_runtime.skeletons import training
from seed_runtime.skeletons.onnx import MODEL_FILE
from seed_runtime.skeletons.training import LEVELS, scan_training
from seed_runtime.tune import Progress, Settings, tune
from seed_runtime.tune.records import FULL, SMALL
from seed_runtime.tuned_seed import write_tuned

PICTURES = 5
"""Pictures of each class that a seed is tuned on."""
_LEVEL_OF = {SMALL: training.SMALL, FULL: training.FULL}
"""The largest set of tensors that a tier trains."""


def tuned(
    path: Path, task: Any, draw: int, original: float, cache: ModelCache, mode: str = "auto", limit: int | None = None
) -> Figures:
    """Tune a seed, write the delta beside it, apply that and judge it.

    Args:
        path: the seed.
        task: of bench/matters/glyphs.py.
        draw: decides the pictures, and what the tuner holds out of them.
        original: accuracy that would be the loss won back whole.
        cache: for assembled models.
        mode: of the tuner.
        limit: most bytes of the delta; None for the default [B].
    """
    seed, start = seed_runtime.open(path), time.perf_counter()
    settings = Settings(mode=mode, rng_seed=draw, delta_size=limit)
    found = tune(seed, drawn(task, draw), settings, cache=cache)
    seconds, size = time.perf_counter() - start, 0
    before = after = _accuracy_of(seed, task, cache)
    if found.tensors:
        delta = path.with_suffix(f".{draw}.seed")
        size = write_tuned(seed, found, delta, cache)
        after = _accuracy_of(seed.apply(delta), task, cache)
    return {
        "draw": draw, "bytes": path.stat().st_size, "before": measure.rounded(before), "after": measure.rounded(after),
        "won_back": measure.rounded((after - before) / (original - before)) if before < original else None,
        "delta": size, "steps": found.steps, "seconds": round(seconds, 1),
        "kept": [tier.tier for tier in found.tiers if tier.kept], "tried": [tier.tier for tier in found.tiers],
    }  # fmt: skip


def drawn(task: Any, rng_seed: int) -> dict[str, np.ndarray]:
    """Return pictures of training fonts, equally many of each class."""
    images, labels = (part.numpy() for part in task.train)
    rng = np.random.default_rng(rng_seed)
    of_classes = (np.flatnonzero(labels == each) for each in range(task.classes))
    rows = np.concatenate([rng.choice(rows, PICTURES, replace=False) for rows in of_classes])
    return {"image": images[rows], "labels": labels[rows]}


def judging(task: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return every second picture of held-out fonts, and their classes."""
    images, labels = (part.numpy()[1::2] for part in task.held)
    return images, labels


def _accuracy_of(seed: Seed, task: Any, cache: ModelCache) -> float:
    with seed.assembled(cache=cache) as folder:
        return accuracy(folder / MODEL_FILE, task)


def accuracy(model: Path, task: Any) -> float:
    """Return an ONNX file's share of right answers to the judging pictures."""
    from bench.public import onnx_run

    run, (images, labels) = onnx_run(model, threads=1), judging(task)
    answers = [run({"image": images[first : first + 500]})[0] for first in range(0, len(images), 500)]
    return float(np.mean(np.concatenate(answers).argmax(1) == labels))


def paired_steps(path: Path, model: Any, task: Any, cache: ModelCache, tier: str) -> Figures:
    """Time steps of a tier, looks between them included, each followed by torch's with the same tensors and batch.

    One thread each, and a process for torch, whose allocator ours would slow down. Other processes on the machine
    change processor seconds little, and those on the clock much.
    """
    data = drawn(task, 0)
    tuners: list[measure.Spent] = []
    torchs: list[measure.Spent] = []
    seed = seed_runtime.open(path)
    info = scan_training(seed.training_graph(), bytes(seed.skeleton_bytes()), seed.header.holes)
    trained = [each for each in info.tensors if each.level <= LEVELS.index(_LEVEL_OF[tier])]
    shapes = sorted(seed.header.holes[each.hole].dims for each in trained)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arrays = [array[: Settings.batch] for array in data.values()]
    peer = context.Process(target=_step_in_torch, args=(theirs, model, arrays, tier), daemon=True)
    peer.start()
    assert shapes == ours.recv(), "both train the same tensors"
    began: tuple[float, float] | None = None

    def pair(progress: Progress) -> None:
        nonlocal began
        if began is not None:
            tuners.append(measure.Spent(time.process_time() - began[0], time.perf_counter() - began[1]))
            ours.send(True)
            torchs.append(ours.recv())
        began = time.process_time(), time.perf_counter()

    tune(seed, data, Settings(mode=tier, threads=1, progress=pair), cache=cache)
    ours.send(False)
    peer.join()
    medians = (measure.median([step.cpu for step in steps]) for steps in (tuners, torchs))
    tuner, by_torch = map(measure.rounded, medians)
    return {
        "tier": tier, "graph": next(part.size for part in seed.header.parts if part.kind == TRAINING.number),
        "pairs": len(tuners), "seconds": tuner, "torch": by_torch,
        "ratio": measure.rounded(measure.median_ratio(tuners, torchs)),
        "ratio_on_the_clock": measure.rounded(measure.median_ratio(tuners, torchs, "wall")),
    }  # fmt: skip


def _step_in_torch(pipe: Connection, model: Any, arrays: list[np.ndarray], tier: str) -> None:
    """Send the shapes of what a tier trains, and then the time of a step each time that one is asked for."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    images, labels = map(torch.from_numpy, arrays)
    model.requires_grad_(False)
    kinds = (nn.BatchNorm2d, nn.Linear) if tier == SMALL else (nn.BatchNorm2d, nn.Linear, nn.Conv2d)
    layers = [each for each in model.modules() if isinstance(each, kinds)]
    trained = [parameter.requires_grad_() for layer in layers for parameter in layer.parameters()]
    optimizer = torch.optim.Adam(trained, 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    pipe.send(sorted(tuple(each.shape) for each in trained))
    while pipe.recv():
        pipe.send(measure.spent(step))
