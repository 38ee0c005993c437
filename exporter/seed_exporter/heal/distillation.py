"""Train a seed's integers, steps and vectors so that the model answers as the original does, at a size that is held.

Loss: distance to the original's outputs and to its layers, plus lambda times the coder's bits. A controller moves
lambda so that the bits reach what was asked for. The state with the least damage on inputs that aren't trained on is
kept: what is pushed too hard knows its inputs by heart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from seed_exporter.codecs.base import Plan
from seed_exporter.evaluate.damage import judged_outputs
from seed_exporter.graph.model import Graph
from seed_exporter.heal.batches import Batches
from seed_exporter.heal.controller import first_price
from seed_exporter.heal.graphs import device_of, layer_outputs, takes_batches
from seed_exporter.heal.interpreter import Interpreter, check
from seed_exporter.heal.judges import Judges
from seed_exporter.heal.loop import Schedule, Trained, train
from seed_exporter.heal.losses import damage, relative_error
from seed_exporter.heal.rate import RateModel
from seed_exporter.heal.student import Student
from seed_runtime.backends import Array, Feeds

__all__ = ["Settings", "check", "distill"]

THREADS: Final = 2
"""Threads of torch: as many everywhere, because sums depend on it."""

PATIENCE: Final = 8
"""Looks in a row at which inputs of another kind say that a state is too damaged, after which training ends."""

Progress = Callable[[float, float], None]
"""Callback: share of the run that is done, damage on inputs left out."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast is trained.

    Attributes:
        steps: optimizer steps where no time is given; else it is trained until the time is over.
        batch: inputs of a step.
        unit_rate: learning rate of weights, in quantization steps. Larger ones undo at random what feedback of errors
            had rounded together: of 0.01, 0.004, 0.001 and 0.0003 each did less damage than the one before on Magika's
            inputs that were left out (some 5,000 steps on a GPU), and what the first two did to MiniLM-L6 was never
            won back.
        step_rate: learning rate of the logarithms of quantization steps.
        vector_rate: learning rate of vectors, in their steps.
        layers: weight of the distance to the original's layers against that of its outputs, both as parts of the start.
        mixed: share of inputs that are mixed with another one.
        left_out: share of inputs that judge states and aren't trained on.
        descent: share of the run after which the bits are to be what was asked for.
        decay: share of the run after which learning rates fall to nothing.
        every: least steps between two looks at the damage, and between two renewals of the tables.
        looks: looks of a long run, so that what is computed on the host takes a small part of it.
    """

    steps: int = 1000
    batch: int = 16
    unit_rate: float = 5e-4
    step_rate: float = 2e-4
    vector_rate: float = 1e-3
    layers: float = 0.3
    mixed: float = 0.5
    left_out: float = 0.25
    descent: float = 0.4
    decay: float = 0.5
    every: int = 25
    looks: int = 80


def distill(
    graph: Graph,
    plans: Mapping[str, Plan],
    feeds: Sequence[Feeds],
    size_of: Callable[[Mapping[str, Plan]], int],
    goal: int,
    *,
    noisy: Sequence[str] = (),
    settings: Settings | None = None,
    out_of_domain: Sequence[Feeds] = (),
    stop: Callable[[], bool] = lambda: False,
    spent: Callable[[], float] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> dict[str, Plan]:
    """Return better plans: those that were given where training found none.

    Args:
        graph: the graph; its weights are the original's.
        plans: where training starts, of all weights.
        feeds: calibration inputs, at least two.
        size_of: computes the size of the seed that plans give [B].
        goal: largest size [B].
        noisy: outputs that noise decides.
        settings: how long and how fast is trained.
        out_of_domain: inputs of another kind than `feeds`, on which no more damage may be done than bits that are
            given up cost without training.
        stop: asked after each step; True ends training.
        spent: gives the share of the time that has passed, and sets the schedule; None to train `settings.steps`.
        progress: told how far it is.
        device: where it is computed; None for a GPU where there is one.

    Raises:
        UnsupportedError: the graph has an operator that torch can't compute here.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        run = _Run(
            graph, plans, feeds, size_of, goal, noisy, settings or Settings(), torch.device(device or device_of()),
            out_of_domain,
        )  # fmt: skip
        return run.train(stop, spent, progress)
    finally:
        torch.set_num_threads(before)


class _Run(Trained):
    """One training: the student, the original beside it, and what steers both."""

    recordable = False  # tables and classes of the rate are renewed

    def __init__(
        self,
        graph: Graph,
        plans: Mapping[str, Plan],
        feeds: Sequence[Feeds],
        size_of: Callable[[Mapping[str, Plan]], int],
        goal: int,
        noisy: Sequence[str],
        settings: Settings,
        device: torch.device,
        out_of_domain: Sequence[Feeds],
    ) -> None:
        self.settings, self.plans, self.size_of, self.goal = settings, plans, size_of, goal
        self.layers = layer_outputs(graph) if settings.layers else []
        self.model = Interpreter(graph, device=device, kept=self.layers)
        self.originals = self.model.weights()
        self.student = Student(graph, plans, device)
        self.rate = RateModel(device)
        self.rate.renew(self.student.integers())
        held = max(1, round(settings.left_out * len(feeds)))
        size = settings.batch if takes_batches(graph) else 1
        self.batches = iter(
            Batches(feeds[:-held], size, settings.mixed, tensor=self.model.tensor, device=device)
        )  # fmt: skip
        self.held = Judges(self.model, self.originals, feeds[-held:], size)
        self.out_of_domain = Judges(self.model, self.originals, out_of_domain, size)
        outputs = {value.name for value in graph.model.graph.output} - set(noisy)
        arrays: list[Mapping[str, Array]] = [
            {name: value.cpu().numpy() for name, value in found.items() if name in outputs}
            for found in self.held.expected
        ]
        self.judged = judged_outputs(arrays)
        self._best: list[Tensor] | None = None

    def train(
        self, stop: Callable[[], bool], spent: Callable[[], float] | None, progress: Progress | None
    ) -> dict[str, Plan]:
        """Train until the run is over or it is stopped, and return the best plans that keep the size."""
        settings, student = self.settings, self.student
        self._least = self.held_damage()
        self._scale, self._layer_scale = max(self._least, 1e-9), max(self.held_layers(), 1e-9)
        self._steering = _Steering(self._bits(), self._spare_bits(), settings.descent)
        size = self.size_of(dict(self.plans) | student.plans())
        if size > self.goal:
            self._least = math.inf  # what is too large is no result
        given_up = 8 * max(0, size - self.goal) / max(1, student.matrices.numel())
        # Damage goes with the square of the step, which doubles with each bit.
        self._allowed, self._refused = self.out_of_domain_damage() * 4**given_up, 0
        self._looked, self._progress = 0.0, progress
        train(self, Schedule(settings.steps, decay=settings.decay), stop, spent)
        if self._best is None:
            return dict(self.plans)
        student.restore(self._best)
        return dict(self.plans) | student.plans()

    def groups(self) -> list[dict[str, Any]]:
        """Return what is trained, with its learning rates."""
        settings, student = self.settings, self.student
        return [
            {"params": [student.matrices], "lr": settings.unit_rate},
            {"params": [student.coarsened], "lr": settings.step_rate},
            {"params": [student.vectors], "lr": settings.vector_rate},
        ]

    def batch(self) -> dict[str, Tensor]:
        """Return the next batch."""
        return next(self.batches)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        with torch.no_grad():
            original = self.model.run(batch, self.originals)
        units = self.student.units()
        found = self.model.run(batch, self.originals | self.student.weights(units))
        loss = damage(original, found, self.judged) / self._scale
        if self.layers:
            loss = loss + self.settings.layers / self._layer_scale * self._layer_error(original, found)
        bits = self.rate.bits(units)
        if self._steering.price == 0:
            count = self.student.matrices.numel()
            self._steering.price = first_price(loss, bits, [self.student.coarsened], count)
        return loss + self._steering.price * bits

    def steer(self, share: float) -> None:
        """Move the price of a bit."""
        self._steering.move(self._bits(), share)

    def look(self, step: int, share: float, over: bool) -> bool:
        """Renew the tables, measure size and damage, and keep the state if it is the best."""
        settings = self.settings
        if not over and (step % settings.every < settings.every - 1 or share < self._looked + 1 / settings.looks):
            return False
        self._looked = share
        self.rate.renew(self.student.integers())
        size = self.size_of(dict(self.plans) | self.student.plans())
        self._steering.goal = self._bits() + 8 * (0.998 * self.goal - size)
        judged = self.held_damage()
        other = self.out_of_domain_damage()
        self._refused = 0 if math.isfinite(other) and not other > self._allowed else self._refused + 1
        if size <= self.goal and judged < self._least and not self._refused:
            self._least, self._best = judged, self.student.state()
        if self._progress is not None:
            self._progress(share, judged)
        return over or (self._refused >= PATIENCE and share >= settings.descent)

    def held_damage(self) -> float:
        """Measure the student's damage on the inputs that are left out."""
        return self._damage(self.held)

    def out_of_domain_damage(self) -> float:
        """Measure it on inputs of another kind; 0 without any."""
        return self._damage(self.out_of_domain)

    def held_layers(self) -> float:
        """Measure the distance of its layers there."""
        if not self.layers:
            return 0.0
        with torch.no_grad():
            original = self.model.run(self.held.batches[0], self.originals)
            found = self.model.run(self.held.batches[0], self._student_weights())
            return float(self._layer_error(original, found))

    def _damage(self, judges: Judges) -> float:
        weights = self._student_weights()
        return judges.damage(lambda batch: self.model.run(batch, weights), self.judged)

    def _student_weights(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.originals | self.student.weights(self.student.units())

    def _layer_error(self, original: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([relative_error(original[name], found[name]) for name in self.layers]).mean()

    def _bits(self) -> float:
        return self.rate.bits_of(self.student.units().detach().round())

    def _spare_bits(self) -> float:
        """Return the bits that matrices may take, as far as tables tell, for the seed to have the size of the goal."""
        return self._bits() + 8.0 * (self.goal - self.size_of(dict(self.plans) | self.student.plans()))


class _Steering:
    """The price of a bit, moved so that the bits follow a curve down to the goal."""

    def __init__(self, bits: float, goal: float, descent: float) -> None:
        self.first, self.goal, self.descent = bits, goal, descent
        self.price = 0.0

    def move(self, bits: float, share: float) -> None:
        """Raise the price where there are more bits than the curve allows at this share of the run, else lower it."""
        goal = max(self.goal, self.first * (self.goal / self.first) ** min(1.0, share / self.descent))
        self.price *= math.exp(0.08 * float(np.clip(20 * math.log(bits / goal), -1, 1)))
