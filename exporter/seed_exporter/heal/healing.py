"""Heal a model: distil it into itself while the number of bits is part of the loss.

Loss: distance to the original's outputs at a temperature, a part of the cross-entropy where inputs have labels, and
lambda times the bits. The bits fall exponentially to the goal by half of the run; then learning rates fall, and what
was lost on the way is won back. The state with the least damage on inputs that aren't trained on is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from seed_exporter.codecs.base import Plan
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.model import Graph
from seed_exporter.heal.batches import Batches, Draw, channels_last
from seed_exporter.heal.checkpoint import Checkpoints, key_of
from seed_exporter.heal.controller import Controller, first_price, theoretical_price
from seed_exporter.heal.cuts import CutDead
from seed_exporter.heal.gradient_norms import GradientNorms
from seed_exporter.heal.graphs import device_of, layer_outputs, takes_batches
from seed_exporter.heal.interpreter import Interpreter
from seed_exporter.heal.judges import Judges, Usable, check_outputs, usable_feeds
from seed_exporter.heal.looks import Look
from seed_exporter.heal.loop import Moments, Schedule, Trained, train
from seed_exporter.heal.losses import (
    UNLABELLED,
    as_floats,
    cross_entropy,
    distance,
    labelled_output,
    probabilities_of,
    relative_error,
)
from seed_exporter.heal.midway import MidwayCuts
from seed_exporter.heal.pace import BATCH_LEAST, BATCH_MOST, Pace
from seed_exporter.heal.precision import fast_floats, mixed
from seed_exporter.heal.resuming import CUT, arrays_of, in_order, restore
from seed_exporter.heal.settings import SHORT, HealSettings, check_count
from seed_exporter.heal.squeeze import OVER_MOST, squeeze
from seed_exporter.heal.states import Seen
from seed_exporter.heal.student_graph import StudentGraph
from seed_runtime.backends import Feeds
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError

__all__ = ["HealSettings", "Healing"]

_STEPS: Final = (0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04, 0.025)
"""Quantization steps at the start, in standard deviations, of which the first one is taken that is large enough."""
_START: Final = 1.25
"""Least size at the start, as a multiple of the goal: what is trained must have something to give up."""
_ROOM: Final = 0.99
"""Part of the goal that is steered to: sizes swing by less than a hundredth."""

Size = Callable[[Graph, Mapping[str, Plan]], int]
"""Compute the size of the whole seed of plans of a graph, the folded one with small biases as they are now [B]."""


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
        draw: gives what is trained on, with `labels` where there are some; all of `feeds` judge then.
        teacher: what is learned from in place of `graph`, with the same inputs and outputs.
        device: where; None for a GPU where there is one.
        checkpoints: folder in which the state is saved every few minutes, and from which it is continued.
        checkpoint_key: what tells its training from others; "" for a digest of all that it depends on.
        cut_dead: cuts what is dead out of a graph and its plans, midway; None to cut nothing.
        start: plans of all weights of the folded graph, near the goal; None to start coarse, at a larger size.
        tell: called after each look.
        pace: called once before training, with the time of a step [s].
        say: called with lines for the user that can't wait.

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
        draw: Draw | None = None,
        teacher: Graph | None = None,
        device: str | None = None,
        checkpoints: Path | None = None,
        checkpoint_key: str = "",
        cut_dead: CutDead | None = None,
        start: Mapping[str, Plan] | None = None,
        tell: Callable[[Look], None] = lambda look: None,
        pace: Callable[[float], None] = lambda seconds: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.settings = settings or (HealSettings() if start is None else SHORT)
        self.goal, self.scores = goal, scores
        self._tell, self._pace = tell, pace
        self._others, self._size_of = start or others, size_of
        self._started = start is not None
        self.device = torch.device(device or device_of())
        held = len(feeds) if draw else self.settings.judging(len(feeds))
        self._most = BATCH_MOST if draw else len(feeds) - held
        size = min(self.settings.batch, self._most) if takes_batches(graph) else 1
        norms = size >= BATCH_LEAST
        self.layers = layer_outputs(folded) if self.settings.layers and teacher is None else []
        # A batch norm that learns nothing is a pass over memory for nothing.
        self.teacher = Interpreter(fold_batch_norms(teacher or graph), device=self.device, kept=self.layers)
        self._originals = self.teacher.weights()
        for step in _STEPS:
            self.student = StudentGraph(graph, folded, self.layers, norms, step, self.device, start)
            if start is not None or size_of(folded, dict(others) | self.student.plans()) > _START * goal:
                break
        if not self.student.matrices.names:
            raise InputError("the model has no weight that is large enough to be trained; export it without --heal")
        self._draw, self._trained_on, self._cleaned = draw, list(feeds[held:]), bool(draw)
        self._batches = self._batches_of(size, self.settings.mixed)
        self._drawn = iter(self._batches)
        self.held = Judges(self.teacher, self._originals, feeds[:held], size)
        outputs = {value.name for value in graph.model.graph.output} - set(noisy)
        expected = self.held.expected
        self.judged = [name for name, value in expected[0].items() if name in outputs and value.is_floating_point()]
        check_outputs(self.judged, expected)
        self._probabilities = probabilities_of({name: expected[0][name] for name in self.judged})
        self._labelled: str | None = None
        self._sizes = ThreadPoolExecutor(1, "sizes")
        self._seen: Seen | None = None
        self._usable, self._say = Usable(self.device), say
        self._gradients = GradientNorms(self.device)
        self._checkpoints: Checkpoints | None = None
        bits = self._bits()
        seen = self._look(0.0, bits)
        first = seen.healed()
        self.looks, self.best, self.last = [first.look], first, first
        self.controller = Controller(
            8.0 * first.look.size, 8.0 * _ROOM * goal, self.settings.descent, self.settings.decay
        )
        self.controller.correct(8.0 * first.look.size, bits)
        self._price, self._symbols = (torch.zeros((), device=self.device) for _ in range(2))
        self._looked = self.first_share = 0.0
        self._steps, self._timed, self._prices = self.settings.steps, False, list[tuple[float, float]]()
        self._best_snapshot, self._best_cuts = dict[str, np.ndarray](), 0
        self._cuts = MidwayCuts(1.0 if self._started else self.settings.cut, cut_dead)
        if checkpoints is not None:
            learned = [] if teacher is None or checkpoint_key else [key_of(teacher, [])]
            key = checkpoint_key or key_of(graph, feeds, self.settings, goal, *learned)
            self._checkpoints = Checkpoints(checkpoints, key, say)
            self._resume(self._checkpoints)

    def run(self, stop: Callable[[], bool], spent: Callable[[], float] | None, seconds: float | None = None) -> None:
        """Train; `best` is the best so far at any time.

        Args:
            stop: asked after each step; True ends training.
            spent: gives the share of the time that has passed; None to train as many steps as the settings say.
            seconds: the time that there is, with `spent` [s].
        """
        pace = Pace(self._trial, self.device)
        size = self._batches.size
        if seconds is None:
            # Without a time limit the same command gives the same bytes: nothing may depend on measured times.
            pace.measure(size)
        else:
            size = pace.choose(size, self._most, seconds)
            self._steps, self._timed = max(1, int(seconds / pace.seconds)), True
        seen = 0.0 if self._draw else self._steps * size / len(self._trained_on)
        self._batches = self._batches.resized(size, self.settings.mixed if seen >= self.settings.passes else 0.0)
        self._drawn = iter(self._batches)
        self._pace(pace.seconds)
        schedule = Schedule(self.settings.steps, decay=self.settings.decay, clip=5.0, first=self.first_share)
        with pace.threads(), fast_floats(self.device, self.settings.mixed_precision):
            try:
                train(self, schedule, stop, spent)
            finally:
                self._finish_look()

    @property
    def lost_batches(self) -> str:
        """Say how many batches nothing was learned from; "" if there were none."""
        return self._usable.text()

    def groups(self) -> list[dict[str, Any]]:
        """Return what is trained as it is now, with its learning rates."""
        kinds = self.student.parameters()
        return [{"params": kinds[kind], "lr": rate} for kind, rate in self.settings.rates(self._steps).items()]

    def changed(self, share: float) -> bool:
        """Fold batch norms, and cut what is dead, where it is time to."""
        folds = share >= self.settings.fold and not self.student.rounds_vectors
        if folds:
            with mixed(self.device, self.settings.mixed_precision):
                self.student.fold([self.batch() for _ in range(self.settings.estimate)] if self.student.norms else [])
        return (self._cuts.is_due(share, self.student) and self._cut(share)) or folds

    def moments(self, state: Moments) -> Moments:
        """Return what is left of the optimizer's moments after a cut."""
        return self._cuts.moments(state)

    def _cut(self, share: float) -> bool:
        """Cut what is dead; return whether something was."""
        self._finish_look()
        bits = self._bits()
        plans = self._cuts.cut(share, self.student, self._others, self._checkpoints is not None, self._say)
        if plans is None:
            return False
        self._others = plans
        self.controller.correct(bits + self.controller.offset, self._bits())  # a cut model is as large as it was
        return True

    def batch(self) -> dict[str, Tensor]:
        """Return the next batch."""
        return channels_last(next(self._drawn)) if self.device.type == "cuda" else next(self._drawn)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        feed = {name: value for name, value in batch.items() if name != LABELS}
        weights, rate = self.student.weights()
        with mixed(self.device, self.settings.mixed_precision):
            with torch.no_grad():
                original = as_floats(self.teacher.run(feed, self._originals))
            found = as_floats(self.student.run(feed, weights, learn=True))
        lost = distance(original, found, self.judged, self.scores, self._probabilities, self.settings.temperature)
        if self.layers:
            errors = [relative_error(original[name], found[name]) for name in self.layers]
            lost = lost + self.settings.layers * torch.stack(errors).mean()
        if LABELS in batch:
            if self._labelled is None:
                self._labelled = labelled_output(batch[LABELS], found, self.judged) or ""
            if name := self._labelled:
                missed = cross_entropy(batch[LABELS], found[name], name in self._probabilities)
                lost = lost + self.settings.labelled * missed
        self._usable.add([original[name] for name in self.judged])
        bits = rate.symbols + rate.structure
        if self.controller.price == 0 and bool(torch.isfinite(lost)):
            matrices = self.student.matrices
            price = first_price(lost, bits, matrices.parameters()["growth"], matrices.count)
            self.controller.start(price, theoretical_price(float(lost.detach()), matrices.count))
            self._price.fill_(self.controller.price)
        self._symbols.copy_(rate.symbols.detach())
        return lost + self._price * bits

    def heard(self, norm: Tensor) -> None:
        """Count a gradient."""
        self._gradients.add(norm)

    def steer(self, share: float) -> None:
        """Move the price of a bit."""
        self._price.fill_(self.controller.move(float(self._symbols), share))

    def look(self, step: int, share: float, over: bool) -> bool:
        """Measure size and damage, and keep the state if it is the best.

        The size is computed beside the next steps, and used at the next look.
        """
        if not over and share < self._looked + 1 / self.settings.looks:
            return False
        if not over and self._timed and self._seen is not None and not self._seen.size.done():
            return False
        if not self._usable.all:
            self._clean()
        self._looked = share  # what is told of the look before may end the run, and the state is saved as it is now
        self._finish_look()
        self._seen = self._look(share, self._bits())
        if over:
            self._finish_look()
            self._squeeze(share)
        if self._checkpoints is not None and (over or self._checkpoints.is_due):
            self.save()
        return over

    def save(self) -> None:
        """Save the state as a checkpoint, where a folder was given."""
        if self._checkpoints is None:
            return
        best = self._best_snapshot if self.best.look.size <= self.goal else {}  # a smaller one is no result yet
        arrays = arrays_of(self.student.snapshot(), best, self._cuts.before)
        facts = {
            "share": self._looked,
            "controller": self.controller.state(),
            "started": self._started,
            "next_cut": self._cuts.due,
            "best_cuts": self._best_cuts,
            "prices": self._prices,
        }
        self._checkpoints.write(arrays, facts)

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Go on from the checkpoint, if there is one."""
        if (found := checkpoints.read()) is None:
            return
        arrays, facts = found
        for kind, held in in_order(arrays, facts.get("best_cuts")):
            if kind == CUT:
                self._others = self._cuts.again(held, self.student, self._others)
                continue
            restore(self.student, held)
            self._seen = self._look(facts["share"], self._bits())
            self._finish_look()
        self._cuts.due = float(facts.get("next_cut", self._cuts.due))
        self._prices = [(share, price) for share, price in facts.get("prices", [])]
        self.controller.restore(facts["controller"])
        self._price.fill_(self.controller.price)
        self.controller.correct(8.0 * self.last.look.size, self._bits())
        self.first_share = self._looked = float(facts["share"])

    def _batches_of(self, size: int, mixed: float) -> Batches:
        return Batches(
            self._trained_on, size, mixed, tensor=self.teacher.tensor, device=self.device,
            draw=self._draw, unlabelled={LABELS: UNLABELLED},
            full=self.device.type == "cuda" or self.student.norms is not None,
        )  # fmt: skip

    def _clean(self) -> None:
        """Leave out the inputs on which the original answers with NaN; one of them spoils a batch."""
        if self._cleaned:
            self._usable.check()
            return
        self._cleaned, before = True, len(self._trained_on)
        size = self._batches.size
        self._trained_on = usable_feeds(self.teacher, self._originals, self._trained_on, self.judged, size)
        if len(self._trained_on) < before:
            lost = f"{before - len(self._trained_on):,} of {before:,} inputs of --heal"
            self._say(f"{lost} are left out: the model answers with NaN or infinity on them")
            check_count(len(self._trained_on))
            self._batches = self._batches_of(min(size, len(self._trained_on)), self._batches.mixed)
            self._drawn = iter(self._batches)
            self._usable.forget()

    def _trial(self, size: int) -> None:
        """Compute the gradient of a batch."""
        self.loss(next(iter(self._batches.resized(size)))).backward()

    def _look(self, share: float, bits: float) -> Seen:
        """Look at the state as it is now."""
        plans = dict(self._others) | self.student.plans()
        snapshot = self.student.rounded_snapshot() if self._checkpoints is not None else {}
        graph = self.student.finished()
        size = self._sizes.submit(self._size_of, graph, plans)
        return Seen(graph, plans, share, self._held_damage(), bits, snapshot, size)

    def _finish_look(self) -> None:
        """Learn the size of the state that was looked at last, and keep it if it is the best."""
        seen, self._seen = self._seen, None
        if seen is None:
            return
        self.last = seen.healed(self.controller.price, *self._gradients.read())
        self.controller.correct(8.0 * self.last.look.size, seen.bits)
        self.looks.append(self.last.look)
        self._prices.append((seen.share, self.controller.price))
        if self._rank(self.last.look) < self._rank(self.best.look):
            self.best, self._best_snapshot, self._best_cuts = self.last, seen.snapshot, len(self._cuts.before)
        self._tell(self.last.look)

    def _squeeze(self, share: float) -> None:
        """Coarsen the steps of a run that ends a little above its goal until it keeps it."""
        if not self.goal < self.last.look.size <= OVER_MOST * self.goal:
            return

        def size() -> int:
            return self._size_of(self.student.finished(), dict(self._others) | self.student.plans())

        if squeeze(self.student.matrices.coarsen, size, self.goal):
            self._seen = self._look(share, self._bits())
            self._finish_look()

    def _rank(self, look: Look) -> tuple[float, float]:
        """Order states from best to worst: the least damage of those that keep the goal, else the smallest."""
        return (0.0, look.damage) if look.size <= self.goal else (1.0, float(look.size))

    def _bits(self) -> float:
        with torch.no_grad():
            return float(self.student.weights()[1].symbols)

    def _held_damage(self) -> float:
        with torch.no_grad():
            weights, _ = self.student.weights()
        return self.held.damage(lambda batch: self.student.run(batch, weights), self.judged, self.scores)
