"""Train any of the networks: limits in time or steps, schedule, mixed precision, checkpoints to go on from."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seed_exporter.heal.stepping import Stepper

from . import checkpoints

CHECKPOINT_EVERY = 0.2  # shares of the run
LOG_EVERY = 0.05
MEMORY_SHARE = "CLAIMS_MEMORY_SHARE"  # environment variable, where several programs share a card
ON_GPU = "CLAIMS_ON_GPU"  # environment variable, 1 where there must be a GPU


class NoGpuError(ValueError):
    """A program that was given a GPU finds none."""

    def __str__(self) -> str:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        return f"torch {torch.__version__} finds no GPU, with CUDA_VISIBLE_DEVICES={seen}"


@dataclass(frozen=True)
class Limit:
    """How long to train: seconds, or steps where they are given (tests, repeatable runs)."""

    seconds: float
    steps: int | None = None


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        rate: of AdamW at its highest.
        decay: of weights with two axes and more.
        flat: share of the run before the rate falls, to 1 % at the end.
        warm: steps until the rate is reached.
        cosine: fall like a cosine, else on a line.
        clip: norm of the gradient.
        beta: second moment's.
        recorded: whether steps are recorded once for each set of shapes, and played back on a GPU.
    """

    rate: float
    decay: float = 0.02
    flat: float = 0.0
    warm: int = 100
    cosine: bool = True
    clip: float = 1.0
    beta: float = 0.98
    recorded: bool = False


def device() -> torch.device:
    """Return the GPU where there is one, of whose memory no more than `MEMORY_SHARE` says is taken.

    Raises:
        NoGpuError: there is none, and `ON_GPU` says that there must be one.
    """
    if not torch.cuda.is_available():
        if os.environ.get(ON_GPU) == "1":
            raise NoGpuError
        return torch.device("cpu")
    torch.cuda.set_per_process_memory_fraction(float(os.environ.get(MEMORY_SHARE, 1)))
    return torch.device("cuda")


def mixed(where: torch.device) -> torch.autocast:
    """Return bf16 on a GPU; on a CPU it changes nothing."""
    # A recorded step must not use weights that were rounded before it.
    return torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda", cache_enabled=False)


def rate_at(share: float, step: int, settings: Settings) -> float:
    """Return the learning rate's share of its highest."""
    warm = min(1.0, (step + 1) / settings.warm)
    left = max(0.0, share - settings.flat) / max(1e-9, 1 - settings.flat)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, left))) if settings.cosine else 1 - min(1.0, left)
    return warm * max(0.01, fall)


@contextmanager
def _recordable() -> Iterator[None]:
    """Use a stream of its own on a GPU: on the one that is used where nothing is said, steps can't be recorded."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
    torch.cuda.synchronize()


@_recordable()
def train(
    model: nn.Module,
    batch_of: Callable[[], dict[str, Tensor]],
    loss_of: Callable[[Mapping[str, Tensor]], Tensor],
    judge: Callable[[], float],
    limit: Limit,
    settings: Settings,
    out: Path,
    about: dict[str, Any],
    stage: str,
) -> dict[str, Any]:
    """Train a network and leave its checkpoint in `out`.

    A checkpoint of the same stage that isn't finished is gone on from: its share of the run counts as done, the
    optimizer begins anew. Steps with a gradient that isn't finite are skipped and counted, on the device: a step
    never waits for the GPU.

    Args:
        model: on its device; left in training mode.
        batch_of: makes a batch.
        loss_of: returns its loss.
        judge: quality on the validation part, for progress only: nothing is selected by it.
        limit: how long.
        settings: how.
        out: folder of the checkpoint.
        about: said in the checkpoint.
        stage: its name there.

    Returns:
        Steps, skipped steps, seconds, and the last value of `judge`.
    """
    begun = _resume(model, out, stage)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    where = next(model.parameters()).device
    on_gpu = where.type == "cuda"
    groups = [{**group, "lr": torch.tensor(settings.rate, device=where)} for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, settings.beta), fused=True, capturable=on_gpu)
    done = {"steps": 0, "skipped": 0} | begun
    first_share, first_step, start = done.pop("share", 0.0), done["steps"], time.monotonic()
    skipped = torch.full((), float(done["skipped"]), device=where)
    logged = saved = first_share
    share, step, last = first_share, first_step, torch.zeros((), device=where)

    def loss(batch: Mapping[str, Tensor]) -> Tensor:
        found = loss_of(batch)
        last.copy_(found.detach())
        return found

    def heard(norm: Tensor) -> None:
        skipped.add_((~torch.isfinite(norm)).float())

    stepper = Stepper(loss, optimizer, settings.clip, settings.recorded, heard)
    model.train()
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"].fill_(settings.rate * rate_at(share, step - first_step, settings))
        stepper.step(batch_of())
        step += 1
        spent = time.monotonic() - start
        share = step / limit.steps if limit.steps else first_share + spent / limit.seconds
        if share >= logged + LOG_EVERY:
            logged = share
            _log(
                stage=stage,
                share=share,
                step=step,
                loss=float(last),
                quality=_judged(model, judge),
                seconds=spent,
            )
        if share >= saved + CHECKPOINT_EVERY and share < 1:
            saved = share
            so_far = {"steps": step, "skipped": int(skipped)}
            _save(model, out, about | {"stage": stage, "share": share, "done": so_far})
    result = {
        "steps": step,
        "skipped": int(skipped),
        "seconds": time.monotonic() - start,
        "validation": _judged(model, judge),
    }
    _log(stage=stage, finished=True, recorded=stepper.recorded, **result)
    _save(model, out, about | {"stage": stage, "share": 1.0, "done": result})
    return result


def _resume(model: nn.Module, out: Path, stage: str) -> dict[str, Any]:
    if not (out / checkpoints.LIST).is_file():
        return {}
    state, about = checkpoints.load(out)
    if about.get("stage") != stage or about["share"] >= 1:
        return {}
    model.load_state_dict(state)
    return {"share": about["share"], "steps": about["done"]["steps"], "skipped": about["done"]["skipped"]}


def _save(model: nn.Module, out: Path, about: dict[str, Any]) -> None:
    checkpoints.save(out, model.state_dict(), about)


def _judged(model: nn.Module, judge: Callable[[], float]) -> float:
    model.eval()
    with torch.no_grad():
        value = judge()
    model.train()
    return value


def _log(**fields: Any) -> None:
    rounded = {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in fields.items()}
    print(json.dumps(rounded), flush=True)
