"""The optimizer's loop that healing and the highest effort share: Adam, its learning rates over the run, its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from seed_exporter.heal.stepping import Stepper

STEER_EVERY = 5
"""Steps between two moves of the price of a bit."""

Moments = Mapping[Tensor, dict[str, Any]]
"""Adam's state by parameter."""


@dataclass(frozen=True)
class Schedule:
    """How long is trained, and how learning rates change.

    Attributes:
        steps: optimizer steps where no time is given; else it is trained until the time is over.
        warm: steps over which learning rates rise.
        decay: share of the run after which they fall, linearly.
        floor: share of themselves that is left in the end.
        clip: largest norm of a gradient; None for any.
        first: share of the run that was done before, by a run that is continued.
    """

    steps: int
    warm: int = 20
    decay: float = 0.5
    floor: float = 0.02
    clip: float | None = None
    first: float = 0.0

    def rate(self, step: int, share: float) -> float:
        """Return the factor on learning rates."""
        return min(1.0, (step + 1) / self.warm, max(self.floor, (1 - share) / (1 - self.decay)))

    def share(self, steps: int, spent: Callable[[], float] | None) -> float:
        """Return the share of the run that is done after so many steps of this run."""
        done = steps / max(1, round((1 - self.first) * self.steps)) if spent is None else spent()
        return min(1.0, self.first + (1 - self.first) * done)


class Trained(ABC):
    """What is trained.

    Attributes:
        recordable: whether `loss` computes the same with the same tensors each time, as a recorded step must.
    """

    recordable = True

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """Return parameters with their learning rates, as torch's optimizers take them."""

    @abstractmethod
    def batch(self) -> dict[str, Tensor]:
        """Return the next batch."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch, the price of its bits included; after its first call without asking a GPU."""

    def heard(self, norm: Tensor) -> None:  # noqa: B027 (nobody has to listen)
        """Be told the norm of each gradient, on the device; must not ask a GPU for it."""

    @abstractmethod
    def steer(self, share: float) -> None:
        """Move the price; called every STEER_EVERY steps."""

    @abstractmethod
    def look(self, step: int, share: float, over: bool) -> bool:
        """Look at what was reached, where it is time to; return True to end the run."""

    def changed(self, share: float) -> bool:
        """Return whether `groups` has other parameters from now on; `moments` gives what they start with."""
        return False

    def moments(self, state: Moments) -> Moments:
        """Return Adam's state of the parameters as they are now, where it is known; given that from before."""
        return state


def train(
    trained: Trained, schedule: Schedule, stop: Callable[[], bool], spent: Callable[[], float] | None
) -> torch.optim.Optimizer:
    """Train until the run is over, or is stopped; return the optimizer.

    A gradient that isn't finite changes nothing.
    """
    if not torch.cuda.is_available():
        return _train(trained, schedule, stop, spent)
    # Steps can't be recorded on the stream that is used where nothing is said.
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        optimizer = _train(trained, schedule, stop, spent)
    torch.cuda.synchronize()
    return optimizer


def _train(
    trained: Trained, schedule: Schedule, stop: Callable[[], bool], spent: Callable[[], float] | None
) -> torch.optim.Optimizer:
    optimizer = adam(trained)
    stepper = Stepper(trained.loss, optimizer, schedule.clip, trained.recordable, trained.heard)
    share = schedule.first
    for step in count():
        if trained.changed(share):
            optimizer = adam(trained, optimizer)
            stepper = Stepper(trained.loss, optimizer, schedule.clip, trained.recordable, trained.heard)
        factor = schedule.rate(step, share)
        for group in optimizer.param_groups:
            group["lr"].fill_(factor * group["full"])
        stepper.step(trained.batch())
        share = schedule.share(step + 1, spent)
        if step % STEER_EVERY == STEER_EVERY - 1:
            trained.steer(share)
        if trained.look(step, share, share >= 1 or stop()):
            return optimizer
    raise AssertionError("unreachable")


def adam(trained: Trained, before: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
    """Make the optimizer, with the moments that another one had before parameters changed."""
    groups = [
        {**group, "full": group["lr"], "lr": torch.tensor(group["lr"], device=group["params"][0].device)}
        for group in trained.groups()
        if group["params"]
    ]
    on_gpu = any(group["lr"].is_cuda for group in groups)
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98), fused=True, capturable=on_gpu)
    if before is not None:
        kept = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for parameter, state in trained.moments(before.state).items():
            if parameter in kept:
                optimizer.state[parameter] = state
    return optimizer
