"""How each network is trained: its data, losses and stages. `teachers` and `students` name them on the command line."""

from __future__ import annotations

import json
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
        tiny: the smallest structure and few samples, for tests.
        compiled: whether to compile the network; worth its minute for GPT-2 alone.
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
    tiny: bool = False
    compiled: bool = False
    rng_seed: int = 0

    @property
    def most(self) -> int | None:
        """At most so many samples of each part."""
        return 64 if self.tiny else None


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
    glyphs = Glyphs(run.data, where, run.rng_seed, run.most)
    model, about = _begin(run, settings | {"classes": glyphs.classes}, where)
    model = model.to(memory_format=torch.channels_last)
    teacher = load(run.teacher, where) if run.teacher else None
    count = run.batch or 512

    def loss_of(share: float) -> Tensor:
        x, y = glyphs.batch(count)
        with mixed(where):
            logits = model(x)
            answers = teacher(x) if teacher is not None else None
        if answers is not None:
            return judging.distillation(logits, answers) + 0.3 * nn.functional.cross_entropy(logits.float(), y)
        return nn.functional.cross_entropy(logits.float(), y, label_smoothing=SMOOTHING)

    rate = 1e-3 if run.start is None else 3e-4
    how = Settings(rate if run.name == "resnet50" or run.start else 3e-3, warm=_warm(run, 200), clip=2.0)
    result = train(
        model,
        loss_of,
        lambda: float(judging.right(model, glyphs.validation()).mean()),
        run.limit,
        how,
        run.out,
        about,
        "task",
    )
    found, labels = judging.answers(load(run.out, where), glyphs.held())
    return _finish(run, result, found == labels, {"cluster": glyphs.held_fonts, "answer": found})


def text(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on sections: masked words first, then labels, or a teacher's answers on descriptions and on English."""
    where = device()
    sections = Sections(run.data, where, run.rng_seed, run.most)
    settings = {"words": sections.words if run.tiny else 30522} | settings | {"classes": sections.classes}
    model, about = _begin(run, settings, where)
    pretrains = run.start is None and run.masked_share > 0
    shares = (run.masked_share, 1 - run.masked_share) if pretrains else (0.0, 1.0)
    result: dict[str, Any] = {}
    if pretrains:
        result["masked"] = _masked(run, model, sections, about, shares[0])
    teacher = load(run.teacher, where) if run.teacher else None
    count = run.batch or (128 if teacher else 64)

    def loss_of(share: float) -> Tensor:
        x, y = sections.batch(count)
        x = sections.dropped(x, 0.5 if teacher is not None else 0.15)
        extra = count // 4 if teacher is not None else 0
        if extra:
            # A quarter without labels: the teacher's answers are worth learning everywhere.
            x = torch.cat([x, sections.english(extra, x.shape[1])])
        with mixed(where):
            logits = judging.logits_of(model, x)
            answers = judging.logits_of(teacher, x) if teacher is not None else None
        labelled = logits[: len(y)].float()
        if answers is not None:
            return judging.distillation(logits, answers) + 0.2 * nn.functional.cross_entropy(labelled, y)
        return nn.functional.cross_entropy(labelled, y, label_smoothing=SMOOTHING)

    rate = (1e-4 if settings["width"] > 256 else 5e-4) * (0.5 if run.start else 1)
    how = Settings(rate, 0.01, warm=_warm(run, 200), cosine=False)
    judge = lambda: float(judging.right(model, sections.validation()).mean())  # noqa: E731  one expression, named once
    result |= train(model, loss_of, judge, _part(run.limit, shares[1]), how, run.out, about, "task")
    found, labels = judging.answers(load(run.out, where), sections.held())
    return _finish(run, result, found == labels, {"cluster": sections.held_sources, "answer": found})


def language(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on English documents, or on a teacher's answers to them."""
    where = device()
    window = settings["positions"] if run.tiny else 1024
    english = English(run.data, where, run.rng_seed, window, 8 if run.tiny else 256)
    model, about = _begin(run, {"words": 50257} | settings, where)
    teacher = load(run.teacher, where) if run.teacher else None
    runs = torch.compile(model) if run.compiled else model
    count = run.batch or 12

    def loss_of(share: float) -> Tensor:
        x, y = english.batch(count)
        with mixed(where):
            logits = runs(x)
            answers = teacher(x) if teacher is not None else None
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        return judging.distillation(logits, answers, 1.0) + 0.2 * loss if answers is not None else loss

    def judge() -> float:
        with mixed(where):
            return float(np.exp(judging.surprise(model, english.validation()).mean()))

    how = Settings(
        1e-3 if run.start is None else 4e-4,
        0.1,
        flat=0.4,
        warm=_warm(run, 150),
        cosine=False,
        beta=0.95,
    )
    result = train(model, loss_of, judge, run.limit, how, run.out, about, "task")
    return _finish(run, result, judging.surprise(load(run.out, where), english.held()), {})


def _masked(run: Run, model: nn.Module, sections: Sections, about: dict[str, Any], share: float) -> dict[str, Any]:
    """Pre-train the encoder on masked words; its checkpoint stays beside the task's, to go on from."""
    where, folder = next(model.parameters()).device, run.out / "masked"
    network: Any = models.encoders.MaskedWords(model.encoder).to(where)
    size = 8 if run.tiny else 256
    length = 32 if run.tiny else MASKED_LENGTH

    def loss_of(share: float) -> Tensor:
        ids, chosen, truth = sections.masked(size, length)
        with mixed(where):
            logits = network(ids, chosen)
        return nn.functional.cross_entropy(logits.float(), truth)

    def judge() -> float:
        with mixed(where):
            return float(loss_of(1.0))

    if (folder / checkpoints.LIST).is_file():
        state, said = checkpoints.load(folder)
        if said["share"] >= 1:
            network.load_state_dict(state)
            return dict(said["done"])
    # Post-norm encoders of 6 layers stood still for 60 million tokens at 5e-4 without a long warm-up.
    rate = 4e-4 if model.encoder.words.weight.shape[1] > 256 else 1e-3
    how = Settings(rate, 0.01, flat=0.3, warm=_warm(run, 1000), cosine=False)
    return train(network, loss_of, judge, _part(run.limit, share), how, folder, about, "masked")


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


def _finish(run: Run, result: dict[str, Any], held: np.ndarray, beside: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write `result.json` and the verdicts on held-out samples, which the intervals of the table are of."""
    model = load(run.out, torch.device("cpu"))
    quality = float(held.mean()) if held.dtype == bool else float(np.exp(held.mean()))
    result |= {
        "name": run.name,
        "held": quality,
        "n": len(held),
        "measure": "accuracy" if held.dtype == bool else "perplexity",
        "parameters": models.parameters(model),
        "from": run.start is not None,
    }
    np.savez_compressed(run.out / "verdicts.npz", allow_pickle=False, verdicts=held, **beside)
    (run.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result
