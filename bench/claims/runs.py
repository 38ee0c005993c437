"""How each network is trained: its data, losses and stages. `teachers` and `students` name them on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import checkpoints, judging, models
from .glyph_task import Glyphs
from .text_task import English, Sections
from .training import Limit, Settings, device, mixed, train

MASKED_LENGTH = 128  # of a sample of masked words [token]
SMOOTHING = 0.05


@dataclass(frozen=True)
class Run:
    """What a command asks for.

    Attributes:
        name: of the network.
        data: folder of the data.
        out: folder of the checkpoint and `result.json`.
        limit: how long.
        batch: samples a step; None for the network's own number.
        start: a checkpoint to train on from, with a new schedule.
        teacher: a checkpoint whose answers are learned.
        masked_share: of the time, for masked words before the task.
        masked_only: end after the masked words, so that the task can wait for its teacher.
        rate: learning rate in place of the task's own.
        tiny: the smallest structure and few samples, for tests.
        compiled: whether to compile the network; worth its minute for GPT-2 alone.
        recorded: whether steps are recorded as CUDA graphs, for many steps of small batches.
        rng_seed: of weights and batches.
    """

    name: str
    data: Path
    out: Path
    limit: Limit
    batch: int | None = None
    start: Path | None = None
    teacher: Path | None = None
    masked_share: float = 0.7
    masked_only: bool = False
    rate: float | None = None
    tiny: bool = False
    compiled: bool = False
    recorded: bool = False
    rng_seed: int = 0


def kind_of(name: str) -> str:
    """Return what a network, teacher or student, is trained on: glyphs, sections or english."""
    from . import students

    return (models.KINDS | students.KINDS)[name]


def task_of(kind: str, data: Path, where: torch.device, rng_seed: int = 0, tiny: bool = False) -> Any:
    """Read a task's data: few samples and short windows of it for tests."""
    if kind == "english":
        return English(data, where, rng_seed, *((32, 8) if tiny else ()))
    return (Glyphs if kind == "glyphs" else Sections)(data, where, rng_seed, 64 if tiny else None)


def load(folder: Path, where: torch.device) -> nn.Module:
    """Return the network of a checkpoint, in evaluation mode, its gradients off."""
    state, about = checkpoints.load(folder)
    model = maker(about["name"])(about["settings"])
    model.load_state_dict(state)
    return model.to(where).eval().requires_grad_(False)


def is_finished(folder: Path) -> bool:
    """Return whether a run ended here: its result and the checkpoint that it is of."""
    whole = (folder / "result.json").is_file() and (folder / checkpoints.LIST).is_file()
    return whole and float(checkpoints.load(folder)[1]["share"]) >= 1


def maker(name: str) -> Any:
    """Return what makes a network, teacher or student, of its settings."""
    from . import students

    return lambda settings: (
        students.build(name, settings) if name in students.SETTINGS else models.build(name, settings)
    )


def vision(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on glyphs: labels with a little smoothing, or a teacher's answers and labels."""
    where = device()
    glyphs: Glyphs = task_of("glyphs", run.data, where, run.rng_seed, run.tiny)
    model, about = _begin(run, settings | {"classes": glyphs.classes}, where)
    model = model.to(memory_format=torch.channels_last)
    teacher = load(run.teacher, where) if run.teacher else None
    count = run.batch or (32 if run.tiny else 512)

    def batch_of() -> dict[str, Tensor]:
        x, y = glyphs.batch(count)
        return {"x": x, "y": y}

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        x, y = batch["x"], batch["y"]
        with mixed(where):
            logits = model(x)
            answers = teacher(x) if teacher is not None else None
        if answers is not None:
            return judging.distillation(logits, answers) + 0.3 * nn.functional.cross_entropy(logits.float(), y)
        return nn.functional.cross_entropy(logits.float(), y, label_smoothing=SMOOTHING)

    rate = run.rate or (3e-4 if run.start else 1e-3 if run.name == "resnet50" else 3e-3)
    how = Settings(rate, warm=_warm(run, 200), clip=2.0, recorded=run.recorded)
    judge = _share_right(model, glyphs)
    result = train(model, batch_of, loss_of, judge, run.limit, how, run.out, about, "task")
    return finish(run.out, glyphs, result | {"from": run.start is not None})


def text(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on sections: masked words first, then labels, or a teacher's answers on descriptions and on English."""
    where = device()
    sections: Sections = task_of("sections", run.data, where, run.rng_seed, run.tiny)
    settings = {"words": sections.words if run.tiny else 30522} | settings | {"classes": sections.classes}
    model, about = _begin(run, settings, where)
    pretrains = run.start is None and run.masked_share > 0
    shares = (run.masked_share, 1 - run.masked_share) if pretrains else (0.0, 1.0)
    result: dict[str, Any] = {}
    if pretrains:
        result["masked"] = _masked(run, model, sections, about, 1.0 if run.masked_only else shares[0])
    if run.masked_only:
        return result
    teacher = load(run.teacher, where) if run.teacher else None
    count = run.batch or (128 if teacher else 64)

    def batch_of() -> dict[str, Tensor]:
        x, y = sections.batch(count)
        x = sections.dropped(x, 0.5 if teacher is not None else 0.15)
        extra = count // 4 if teacher is not None else 0
        if extra:
            # A quarter without labels: the teacher's answers are worth learning everywhere.
            x = torch.cat([x, sections.english(extra, x.shape[1])])
        return {"x": x, "y": y}

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        x, y = batch["x"], batch["y"]
        with mixed(where):
            logits = judging.logits_of(model, x)
            answers = judging.logits_of(teacher, x) if teacher is not None else None
        labelled = logits[: len(y)].float()
        if answers is not None:
            return judging.distillation(logits, answers) + 0.2 * nn.functional.cross_entropy(labelled, y)
        return nn.functional.cross_entropy(labelled, y, label_smoothing=SMOOTHING)

    rate = run.rate or (1e-4 if settings["width"] > 256 else 5e-4) * (0.5 if run.start else 1)
    how = Settings(rate, 0.01, warm=_warm(run, 200), cosine=False, recorded=run.recorded)
    limit, judge = _part(run.limit, shares[1]), _share_right(model, sections)
    result |= train(model, batch_of, loss_of, judge, limit, how, run.out, about, "task")
    return finish(run.out, sections, result | {"from": run.start is not None})


def language(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on English documents, or on a teacher's answers to them."""
    where = device()
    english: English = task_of("english", run.data, where, run.rng_seed, run.tiny)
    model, about = _begin(run, {"words": 50257} | settings, where)
    teacher = load(run.teacher, where) if run.teacher else None
    runs = torch.compile(model) if run.compiled and where.type == "cuda" else model
    count = run.batch or (4 if run.tiny else 12)

    def batch_of() -> dict[str, Tensor]:
        x, y = english.batch(count)
        return {"x": x, "y": y}

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        x, y = batch["x"], batch["y"]
        with mixed(where):
            logits = runs(x)
            answers = teacher(x) if teacher is not None else None
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        return judging.distillation(logits, answers, 1.0) + 0.2 * loss if answers is not None else loss

    def judge() -> float:
        with mixed(where):
            return float(np.exp(judging.negative_log_likelihood(model, english.validation()).mean()))

    rate = run.rate or (4e-4 if run.start else 1e-3)
    how = Settings(rate, 0.1, flat=0.4, warm=_warm(run, 150), cosine=False, beta=0.95, recorded=run.recorded)
    result = train(model, batch_of, loss_of, judge, run.limit, how, run.out, about, "task")
    return finish(run.out, english, result | {"from": run.start is not None})


def _share_right(model: nn.Module, task: Any) -> Callable[[], float]:
    """Return what judges a classifier for progress, in the precision that it trains in."""

    def judge() -> float:
        with mixed(next(model.parameters()).device):
            return float(judging.right(model, task.validation()).mean())

    return judge


def _masked(run: Run, model: nn.Module, sections: Sections, about: dict[str, Any], share: float) -> dict[str, Any]:
    """Pre-train the encoder on masked words; its checkpoint stays beside the task's, to go on from."""
    where, folder = next(model.parameters()).device, run.out / "masked"
    network: Any = models.encoders.MaskedWords(model.encoder).to(where)
    size = 8 if run.tiny else 256
    length = 32 if run.tiny else MASKED_LENGTH

    def batch_of() -> dict[str, Tensor]:
        ids, chosen, truth = sections.masked(size, length)
        return {"ids": ids, "chosen": chosen, "truth": truth}

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        with mixed(where):
            logits = network(batch["ids"], batch["chosen"])
        return nn.functional.cross_entropy(logits.float(), batch["truth"])

    def judge() -> float:
        with mixed(where):
            return float(loss_of(batch_of()))

    if (folder / checkpoints.LIST).is_file():
        state, said = checkpoints.load(folder)
        if said["share"] >= 1:
            network.load_state_dict(state)
            return dict(said["done"])
    # Post-norm encoders of 6 layers stood still for 60 million tokens at 5e-4 without a long warm-up.
    rate = 4e-4 if model.encoder.words.weight.shape[1] > 256 else 1e-3
    how = Settings(rate, 0.01, flat=0.3, warm=_warm(run, 1000), cosine=False, recorded=run.recorded)
    return train(network, batch_of, loss_of, judge, _part(run.limit, share), how, folder, about, "masked")


def _begin(run: Run, settings: dict[str, Any], where: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(run.rng_seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = maker(run.name)(settings)
    if run.start is not None:
        model.load_state_dict(checkpoints.load(run.start)[0])
    return model.to(where), {"name": run.name, "settings": settings}


def _warm(run: Run, steps: int) -> int:
    """Return the steps until the learning rate is reached: a tenth of a short run."""
    return min(steps, max(1, run.limit.steps // 10)) if run.limit.steps else steps


def _part(limit: Limit, share: float) -> Limit:
    return Limit(limit.seconds * share, max(1, round(limit.steps * share)) if limit.steps else None)


def finish(out: Path, task: Any, result: dict[str, Any]) -> dict[str, Any]:
    """Judge a checkpoint on the held-out side, write `verdicts.npz` and `result.json`, and return the latter."""
    model = load(out, device())
    name, parameters = checkpoints.load(out)[1]["name"], models.parameters(model)
    return write_verdicts(out, judging.held_verdicts(model, task), result | {"name": name, "parameters": parameters})


def write_verdicts(
    out: Path, judged: tuple[np.ndarray, dict[str, np.ndarray]], result: dict[str, Any]
) -> dict[str, Any]:
    """Write verdicts of `judging.held_verdicts`, which the intervals of the table are of, and what they come to."""
    held, beside = judged
    classifies = held.dtype == bool
    result = result | {
        "held": float(held.mean()) if classifies else float(np.exp(held.mean())),
        "n": len(held),
        "measure": "accuracy" if classifies else "perplexity",
    }
    np.savez_compressed(out / "verdicts.npz", allow_pickle=False, verdicts=held, **beside)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result
