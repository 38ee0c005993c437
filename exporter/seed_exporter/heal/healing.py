"""Heal a model: distil it into itself while the number of bits is part of the loss.

Loss: distance to the original's outputs at a temperature, a part of the cross-entropy where inputs have labels, and
lambda times the bits. The bits fall exponentially to the goal by half of the run; then learning rates fall, and what
was lost on the way is won back. The state with the least damage on inputs that aren't trained on is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from seed_exporter.codecs.base import Plan
from seed_exporter.graph.model import Graph
from seed_exporter.heal.batches import Batches, grouped, joined
from seed_exporter.heal.checkpoint import Checkpoints, key_of
from seed_exporter.heal.controller import Controller, first_price, theoretical_price
from seed_exporter.heal.graphs import device_of, layer_outputs, takes_batches
from seed_exporter.heal.interpreter import Interpreter
from seed_exporter.heal.looks import Look
from seed_exporter.heal.loop import Schedule, Trained, train
from seed_exporter.heal.losses import UNLABELLED, damage, distance, probabilities_of, relative_error, wrong
from seed_exporter.heal.matrices import Rate
from seed_exporter.heal.student_graph import StudentGraph
from seed_runtime.backends import Feeds
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError

INPUTS_LEAST: Final = 16
"""Fewest inputs that are trained on: fewer are known by heart at once."""
_BATCH_LEAST: Final = 8
"""Samples of a batch from which on batch norms can learn from it."""
_STEPS: Final = (0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04, 0.025)
"""Quantization steps at the start, in standard deviations, of which the first one is taken that is large enough."""
_START: Final = 1.25
"""Least size at the start, as a multiple of the goal: what is trained must have something to give up."""
_GROWTH: Final = 2.0
"""Natural logarithms by which quantization steps can grow in a run, however short."""
_SQUEEZES: Final = 16
"""Most times that steps are coarsened by 1/64 at the end: 3 to 10 % of the bytes."""
_STEPS_ENOUGH: Final = 1000
"""Steps below which batches are made smaller to have more of them in the time that there is."""
_ROOM: Final = 0.99
"""Part of the goal that is steered to: sizes swing by less than a hundredth."""


@dataclass(frozen=True)
class HealSettings:
    """How a model is healed.

    Attributes:
        steps: optimizer steps where no time is given; else it is trained until the time is over.
        batch: inputs of a step.
        unit_rate: learning rate of matrices, in their steps at the start.
        growth_rate: of the logarithms of steps.
        factor_rate: of the logarithms of the rate's factors.
        vector_rate: of vectors, in their steps.
        norm_rate: of scales and shifts of batch norms.
        mixed: share of inputs that are mixed with another one.
        labelled: weight of the cross-entropy with labels.
        layers: weight of the distance to the original's layers, in relative squared errors.
        left_out: share of inputs that judge states and aren't trained on.
        descent: share of the run after which the size is to be what was asked for.
        fold: share of the run after which batch norms are folded and vectors rounded.
        decay: share of the run after which learning rates fall.
        looks: looks at the real size and at the damage.
        estimate: batches on which statistics of batch norms are estimated before they are folded.
    """

    steps: int = 3000
    batch: int = 32
    unit_rate: float = 0.03
    growth_rate: float = 2e-3
    factor_rate: float = 1e-2
    vector_rate: float = 0.05
    norm_rate: float = 2e-3
    mixed: float = 0.5
    labelled: float = 0.3
    layers: float = 0.0
    left_out: float = 0.125
    descent: float = 0.5
    fold: float = 0.5
    decay: float = 0.5
    looks: int = 40
    estimate: int = 60


@dataclass(frozen=True, eq=False)
class Healed:
    """A state of a run, as a seed holds it.

    Attributes:
        graph: the graph whose weights are planned.
        plans: of all weights.
        look: its size and damage.
    """

    graph: Graph
    plans: Mapping[str, Plan]
    look: Look


Size = Callable[[Mapping[str, Plan]], int]
"""Compute the size of the whole seed of plans of the folded graph [B]."""


class Healing(Trained):
    """One run.

    Args:
        graph: the original.
        folded: the same without batch norms behind convolutions, whose plans a run ends in.
        feeds: inputs of single calls, with `labels` where they have some.
        others: plans of the weights that aren't trained.
        size_of: computes sizes.
        goal: largest size [B].
        scores: outputs whose largest entry is a decision.
        noisy: outputs that noise decides.
        settings: how it is trained.
        device: where; None for a GPU where there is one.
        checkpoints: folder in which the state is saved every few minutes, and from which it is continued.
        tell: called after each look.
        pace: called once before training, with the time of a step [s].

    Raises:
        UnsupportedError: the graph has an operator that torch can't compute here.
        InputError: there is too little data, the original answers with NaN, or the checkpoint is of another training.
    """

    def __init__(
        self,
        graph: Graph,
        folded: Graph,
        feeds: Sequence[Feeds],
        others: Mapping[str, Plan],
        size_of: Size,
        goal: int,
        *,
        scores: frozenset[str] = frozenset(),
        noisy: Sequence[str] = (),
        settings: HealSettings | None = None,
        device: str | None = None,
        checkpoints: Path | None = None,
        tell: Callable[[Look], None] = lambda look: None,
        pace: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.settings, self.goal, self.scores = settings or HealSettings(), goal, scores
        self._tell = tell
        self._pace = pace
        self._others, self._size_of = others, size_of
        self.device = torch.device(device or device_of())
        check_count(len(feeds))
        held = max(8, round(self.settings.left_out * len(feeds))) if len(feeds) >= 2 * INPUTS_LEAST else 4
        self.batch = size = min(self.settings.batch, len(feeds) - held) if takes_batches(graph) else 1
        norms = size >= _BATCH_LEAST
        kept = layer_outputs(folded) if self.settings.layers else []
        self.layers = kept
        self.teacher = Interpreter(graph, device=self.device, kept=kept)
        self._originals = self.teacher.weights()
        for step in _STEPS:
            self.student = StudentGraph(graph, folded, kept, norms, step, self.device)
            if size_of(dict(others) | self.student.plans()) > _START * goal:
                break
        self._feeds = feeds[held:]
        self._batches = self._drawn()
        outputs = {value.name for value in graph.model.graph.output} - set(noisy)
        self._held = [
            self._on_device(joined(group[first : first + size]))
            for group in grouped(feeds[:held])
            for first in range(0, len(group), size)
        ]
        self._expected = [self._original(feed) for feed in self._held]
        self.judged = [name for name in self._expected[0] if name in outputs and self._is_float(name)]
        self._check_outputs()
        self._probabilities = probabilities_of({name: self._expected[0][name] for name in self.judged})
        first = self._state()
        self.looks, self.best, self.last = [first.look], first, first
        with torch.no_grad():
            bits = float(self.student.weights()[1].symbols)
        self.controller = Controller(8.0 * first.look.size, 8.0 * _ROOM * goal, self.settings.descent)
        self.controller.correct(8.0 * first.look.size, bits)
        self._looked = self.first_share = 0.0
        self._steps = self.settings.steps
        self._checkpoints: Checkpoints | None = None
        self._best_snapshot: dict[str, np.ndarray] = {}
        if checkpoints is not None:
            self._checkpoints = Checkpoints(checkpoints, key_of(graph, feeds, self.settings, goal))
            self._resume(self._checkpoints)

    def run(self, stop: Callable[[], bool], spent: Callable[[], float] | None, seconds: float | None = None) -> None:
        """Train; `best` is the best so far at any time.

        Args:
            stop: asked after each step; True ends training.
            spent: gives the share of the time that has passed; None to train as many steps as the settings say.
            seconds: the time that there is, with `spent` [s].
        """
        before = torch.get_num_threads()
        # Without a time limit the same command gives the same bytes: nothing may depend on measured times.
        threads, pace = self._fastest({1, before} if seconds is not None else {before})
        if seconds is not None:
            while seconds / pace < _STEPS_ENOUGH and self.batch >= 2 * _BATCH_LEAST:
                self.batch //= 2
                pace /= 2
            self._batches = self._drawn()
            self._steps = max(1, int(seconds / pace))
        self._pace(pace)
        schedule = Schedule(self.settings.steps, decay=self.settings.decay, clip=5.0, first=self.first_share)
        torch.set_num_threads(threads)
        try:
            train(self, schedule, stop, spent)
        finally:
            torch.set_num_threads(before)

    def _fastest(self, counts: set[int]) -> tuple[int, float]:
        """Return the number of threads with which a step is fastest, and the time of a step [s].

        On a machine with other work, threads that wait for each other take several times as long as one.
        """
        paces = {}
        for threads in sorted(counts):
            torch.set_num_threads(threads)
            for _ in range(2):  # the first step of all allocates
                began = time.monotonic()
                self.loss().backward()
            paces[threads] = time.monotonic() - began
        best = min(paces, key=lambda threads: paces[threads])
        return best, paces[best]

    def groups(self) -> list[dict[str, Any]]:
        """Return what is trained as it is now, with its learning rates."""
        settings, kinds = self.settings, self.student.parameters()
        # In short runs steps and factors must be able to go as far.
        rates = {
            "units": settings.unit_rate, "growth": max(settings.growth_rate, _GROWTH / self._steps),
            "factors": max(settings.factor_rate, 4 * _GROWTH / self._steps),
            "codes": 8 / math.log(2) * settings.norm_rate, "vectors": settings.vector_rate, "norms": settings.norm_rate,
        }  # fmt: skip
        return [{"params": kinds[kind], "lr": rate} for kind, rate in rates.items()]

    def changed(self, share: float) -> bool:
        """Fold batch norms where it is time to."""
        if share < self.settings.fold or self.student.rounds_vectors:
            return False
        self.student.fold([self._next() for _ in range(self.settings.estimate)] if self.student.norms else [])
        return True

    def loss(self) -> Tensor:
        """Return the loss of the next batch."""
        feed = self._next()
        labels = feed.pop(LABELS, None)
        original = self._original(feed)
        weights, rate = self.student.weights()
        found = self.student.run(feed, weights, learn=True)
        lost = distance(original, found, self.judged, self.scores, self._probabilities)
        if self.layers:
            errors = [relative_error(original[name], found[name]) for name in self.layers]
            lost = lost + self.settings.layers * torch.stack(errors).mean()
        if labels is not None and (missed := wrong(labels, found, self.judged)) is not None:
            lost = lost + self.settings.labelled * missed
        bits = rate.symbols + rate.structure
        if self.controller.price == 0:
            matrices = self.student.matrices
            price = first_price(lost, bits, matrices.parameters()["growth"], matrices.count)
            self.controller.start(price, theoretical_price(float(lost.detach()), matrices.count))
        self._rate: Rate = rate
        return lost + self.controller.price * bits

    def steer(self, share: float) -> None:
        """Move the price of a bit."""
        self.controller.move(float(self._rate.symbols.detach()), share)

    def look(self, step: int, share: float, over: bool) -> bool:
        """Measure size and damage, and keep the state if it is the best."""
        if not over and share < self._looked + 1 / self.settings.looks:
            return False
        self._looked = share
        with torch.no_grad():
            bits = float(self.student.weights()[1].symbols)
        state = self._state(share)
        self.controller.correct(8.0 * state.look.size, bits)
        self.looks.append(state.look)
        self._keep(state)
        if over:
            self._squeeze(share)
        if self._checkpoints is not None and (over or self._checkpoints.is_due):
            self.save()
        return over

    def save(self) -> None:
        """Save the state as a checkpoint, where a folder was given."""
        if self._checkpoints is None:
            return
        snapshots = {"last": self.student.snapshot(), "best": self._best_snapshot}
        arrays = {f"{name}/{key}": each for name, held in snapshots.items() for key, each in held.items()}
        self._checkpoints.write(arrays, {"share": self._looked, "controller": self.controller.state()})

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Go on from the checkpoint, if there is one."""
        if (found := checkpoints.read()) is None:
            return
        arrays, facts = found
        for name in ("best", "last"):
            held = {key.partition("/")[2]: each for key, each in arrays.items() if key.startswith(f"{name}/")}
            if not held:
                continue
            try:
                self.student.restore(held)
            except (ValueError, KeyError) as error:
                raise InputError(f"the checkpoint of --resume can't be used: {error}; remove it") from None
            self._keep(self._state(facts["share"]))
        self.controller.restore(facts["controller"])
        with torch.no_grad():
            self.controller.correct(8.0 * self.last.look.size, float(self.student.weights()[1].symbols))
        self.first_share = self._looked = float(facts["share"])

    def _keep(self, state: Healed) -> None:
        self.last = state
        if self._rank(state.look) < self._rank(self.best.look):
            self.best = state
            if self._checkpoints is not None:
                self._best_snapshot = self.student.snapshot()
        self._tell(state.look)

    def _squeeze(self, share: float) -> None:
        """Coarsen the steps of a run that ends a little above its goal until it keeps it."""
        for _ in range(_SQUEEZES):
            if self.last.look.size <= self.goal:
                return
            self.student.matrices.coarsen()
            self._keep(self._state(share))

    def _rank(self, look: Look) -> tuple[float, float]:
        """Order states from best to worst: the least damage of those that keep the goal, else the smallest."""
        return (0.0, look.damage) if look.size <= self.goal else (1.0, float(look.size))

    def _state(self, share: float = 0.0) -> Healed:
        plans = dict(self._others) | self.student.plans()
        size = self._size_of(plans)
        return Healed(self.student.finished(), plans, Look(share, size, self._held_damage()))

    def _held_damage(self) -> float:
        with torch.no_grad():
            weights, _ = self.student.weights()
            found = []
            for feed, original in zip(self._held, self._expected, strict=True):
                answers = self.student.run(feed, weights)
                found.append(damage(original, answers, self.judged))
        mean = float(torch.stack(found).mean())
        # No comparison with NaN is true.
        return mean if math.isfinite(mean) else math.inf

    def _original(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.teacher.run({name: value for name, value in feed.items() if name != LABELS}, self._originals)

    def _check_outputs(self) -> None:
        if not self.judged:
            raise InputError("the model has no output of floats that healing could be led by; export without --heal")
        for index, original in enumerate(self._expected):
            for name in self.judged:
                if not bool(torch.isfinite(original[name]).all()):
                    raise InputError(
                        f"the model answers with NaN or infinity in its output {name!r} on inputs of --heal (batch "
                        f"{index + 1} of those that judge); clean the data, or leave these inputs out"
                    )

    def _is_float(self, name: str) -> bool:
        return self._expected[0][name].is_floating_point()

    def _drawn(self) -> Iterator[dict[str, np.ndarray]]:
        full = self.student.norms is not None
        return iter(Batches(self._feeds, self.batch, self.settings.mixed, full=full, unlabelled={LABELS: UNLABELLED}))

    def _next(self) -> dict[str, Tensor]:
        return self._on_device(next(self._batches))

    def _on_device(self, feed: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: self.teacher.tensor(array) for name, array in feed.items()}


def check_count(count: int) -> None:
    """Raise the error of too little data."""
    if count < INPUTS_LEAST:
        raise InputError(
            f"--heal needs at least {INPUTS_LEAST} inputs to train on beside those that outputs are judged on, and "
            f"there are {count}; give more, thousands if you have them: labels aren't needed"
        )
