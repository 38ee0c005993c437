"""Tiers `small` and `full`: steps down the gradients of micro-batches, which add up to those of a batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.skeletons.training import LOSS
from seed_runtime.tune.best_values import BestValues
from seed_runtime.tune.checkpoint import Checkpoint
from seed_runtime.tune.evaluator import Evaluator
from seed_runtime.tune.joined import JoinedModel, Run
from seed_runtime.tune.micro_batches import Budget, pieces
from seed_runtime.tune.optimizers import OPTIMIZERS
from seed_runtime.tune.progress import RunProgress, TimeUpError
from seed_runtime.tune.records import FULL, SMALL, Score, Settings
from seed_runtime.tune.samples import Rows
from seed_runtime.tune.targets import Task

RATES: Final = {("adam", SMALL): 3e-3, ("adam", FULL): 5e-4, ("sgd", SMALL): 1e-2, ("sgd", FULL): 1e-2}
"""Rates by optimizer and tier, which rise over the first steps and fall to 0 over the others."""
_COPIES: Final = 2
"""Copies of a tensor that an optimizer makes at once."""
_RISE: Final = 5
"""Steps over which the rate rises."""
LOOKS: Final = 12
"""Times at most that values are scored in a run of all steps."""
PATIENCE: Final = 6
"""Looks in a row without a better score after which a tier ends."""


@dataclass(frozen=True)
class TierSession:
    """An open session of a tier, and what it trains on.

    Attributes:
        tier: SMALL or FULL.
        model: what is trained.
        run: a session with the loss and the tier's gradients.
        evaluator: scores values.
        task: what outputs are compared with.
        rows: to train on.
    """

    tier: str
    model: JoinedModel
    run: Run
    evaluator: Evaluator
    task: Task
    rows: Rows


class Descent:
    """Trains the tensors of a tier.

    Args:
        session: of the tier.
        values: of its tensors, which are changed in place.
        best: the values that the tier begins with; gets those with the best score.
        steps: most steps.
        settings: of the run.
        progress: clock and reports.
        budget: of memory.

    Attributes:
        step: steps that were taken.
        micro_batch: samples that are computed at once.
        is_between_steps: whether values, state and best values are those of one step, so that they can be saved.

    Raises:
        MemoryBudgetError: one sample takes too much memory.
    """

    def __init__(
        self,
        session: TierSession,
        values: dict[str, Array],
        best: BestValues,
        steps: int,
        settings: Settings,
        progress: RunProgress,
        budget: Budget,
    ) -> None:
        self._session, self._values, self._best, self._steps = session, values, best, steps
        self._settings, self._progress = settings, progress
        tier, model, rows = session.tier, session.model, session.rows
        tensors = model.tensors_of(tier)
        largest, size = (pick(value.nbytes for value in values.values()) for pick in (max, sum))
        # Gradients, those of a micro-batch, the optimizer's state and the best so far; and what a step copies.
        budget.check(f"training {tier}", size * (4 if settings.optimizer == "adam" else 3) + _COPIES * largest)
        best.reserve(values)
        self._optimizer = OPTIMIZERS[settings.optimizer]([values[each.name] for each in tensors])
        self._gradients = [np.zeros_like(values[each.name]) for each in tensors]
        self._outputs = gradient_outputs(model, tier)
        self._batch = min(settings.batch, len(rows))
        most = min(self._batch, model.samples.batch_max or self._batch)
        self.micro_batch = budget.largest(f"training {tier}", most, lambda count: self._add(rows[:count], 1.0))
        self._is_limited = budget.room is not None
        self.step = self._waited = 0
        self.is_between_steps = True

    def run(self, save: Callable[[], None]) -> None:
        """Take the steps; after each one `save` is called.

        Ends early where the time is up, the loss isn't finite, or PATIENCE looks found nothing better.
        """
        session, settings, progress, steps = self._session, self._settings, self._progress, self._steps
        if self._is_limited:
            session.evaluator.size = self.micro_batch  # it scores in the same session
        rate, look = settings.rate or RATES[settings.optimizer, session.tier], -(-steps // LOOKS)
        batches = _batches(session.rows, self._batch, np.random.default_rng(settings.rng_seed))
        if self.step >= steps or self._waited >= PATIENCE:
            return  # it was interrupted after its last step
        try:
            for rows in islice(batches, self.step, None):
                loss = self._compute_gradients(rows)
                if not math.isfinite(loss):
                    settings.notice(
                        f"{session.tier}: the loss is NaN or infinite after {self.step + 1} steps; try a smaller --lr"
                    )
                    return
                self.is_between_steps = False
                self._optimizer.step(self._gradients, rate * _share(self.step + 1, steps))
                self.step += 1
                is_last = self.step == steps or progress.is_over
                if self.step % look == 0 or is_last:
                    with progress.unlimited() if progress.is_over else contextlib.nullcontext():
                        self._look()
                self.is_between_steps = True
                progress.report(self.step, steps, loss)
                if is_last or self._waited >= PATIENCE:
                    return
                save()
        except TimeUpError:
            settings.notice(f"{session.tier}: the time is up in step {self.step + 1}; the best values so far count")
            if self.is_between_steps and self.step % look:
                with progress.unlimited():
                    self._look()

    def _look(self) -> None:
        """Score the values, and take them where they are the best so far."""
        score = self._session.evaluator.validation_score(self._values)
        self._waited = 0 if self._best.update(score, self._values) else self._waited + 1
        self._progress.best = self._best.score

    def end(self) -> None:
        """Let go of values, gradients and the optimizer's state: rounding and scoring the best values takes memory."""
        self._values.clear()
        del self._gradients, self._optimizer

    def checkpoint(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `restore` needs: a record, and arrays, which go on changing."""
        best = self._best
        record = {
            "tier": self._session.tier,
            "step": self.step,
            "waited": self._waited,
            "micro_batch": self.micro_batch,
            "best": [best.score.value, best.score.loss] if best.is_better else None,
        }
        return record, self._arrays()

    def restore(self, record: dict[str, Any], checkpoint: Checkpoint) -> None:
        """Go on where another process was when it wrote a checkpoint."""
        self.step, self._waited = record["step"], record["waited"]
        # The same sums of the same parts, unless less memory is there by now.
        self.micro_batch = min(self.micro_batch, record["micro_batch"])
        self._optimizer.count = self.step
        if record["best"] is not None:
            self._best.update(Score(*record["best"]), self._values)
        for name, array in self._arrays().items():
            checkpoint.read_into(name, array)
        self._progress.best, self._progress.first_step = self._best.score, self.step

    def _arrays(self) -> dict[str, Array]:
        names = [each.name for each in self._session.model.tensors_of(self._session.tier)]
        groups: dict[str, Mapping[str, Array]] = {"values": self._values, "best": self._best.values}
        groups |= {
            f"optimizer{at}": dict(zip(names, slot, strict=True)) for at, slot in enumerate(self._optimizer.slots)
        }
        holes = self._session.model.hole_of
        return {f"{group}.{holes[name]}": array for group, found in groups.items() for name, array in found.items()}

    def _compute_gradients(self, rows: Rows) -> float:
        """Compute the gradients of the mean loss of some samples; return that."""
        for total in self._gradients:
            total[...] = 0
        count = self._session.task.count(rows)
        return sum(self._add(part, count) for part in pieces(rows, self.micro_batch))

    def _add(self, rows: Rows, count: float) -> float:
        """Add the gradients of some samples, as a share of `count` comparisons; return their share of the loss."""
        loss, *found = self._session.run(rows, self._outputs, self._session.task.feeds(rows, count), self._values)
        for total, part in zip(self._gradients, found, strict=True):
            total += part
        return float(loss)


def _share(step: int, steps: int) -> float:
    """Return the share of the rate at a step, from 1 on."""
    return min(1.0, step / _RISE) * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))


def _batches(rows: Rows, size: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield batches endlessly: all rows in a new order each time, without the incomplete last batch."""
    while True:
        order = rng.permutation(rows)
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def gradient_outputs(model: JoinedModel, tier: str) -> list[str]:
    """Return the outputs of the training graph that a tier needs."""
    return [LOSS, *(each.output for each in model.tensors_of(tier))]
