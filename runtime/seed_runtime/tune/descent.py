"""Tiers `small` and `full`: steps down the gradients of micro-batches, which add up to those of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.skeletons.training import LOSS
from seed_runtime.tune.best_values import BestValues
from seed_runtime.tune.evaluator import Evaluator
from seed_runtime.tune.joined import JoinedModel, Run
from seed_runtime.tune.micro_batches import Budget, pieces
from seed_runtime.tune.optimizers import OPTIMIZERS
from seed_runtime.tune.progress import RunProgress
from seed_runtime.tune.records import FULL, SMALL, Settings
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


def descend(
    session: TierSession,
    values: dict[str, Array],
    best: BestValues,
    steps: int,
    settings: Settings,
    progress: RunProgress,
    budget: Budget,
) -> tuple[int, int]:
    """Train the tensors of a tier; `best` gets the values with the best score.

    Args:
        session: of the tier.
        values: of its tensors, which are changed in place.
        best: the values that the tier begins with.
        steps: most steps.
        settings: of the run.
        progress: clock and reports.
        budget: of memory.

    Returns:
        Steps that were taken, and samples that were computed at once.

    Raises:
        MemoryBudgetError: one sample takes too much memory; no step was taken.
    """
    tier, model, task, train = session.tier, session.model, session.task, session.rows
    tensors = model.tensors_of(tier)
    largest, size = (pick(value.nbytes for value in values.values()) for pick in (max, sum))
    # Gradients, those of a micro-batch, the optimizer's state and the best so far; and what a step copies.
    budget.check(f"training {tier}", size * (4 if settings.optimizer == "adam" else 3) + _COPIES * largest)
    best.reserve(values)
    optimizer = OPTIMIZERS[settings.optimizer]([values[each.name] for each in tensors])
    gradients = [np.zeros_like(values[each.name]) for each in tensors]
    outputs = gradient_outputs(model, tier)

    def add(rows: Rows, count: float) -> float:
        loss, *found = session.run(rows, outputs, task.feeds(rows, count), values)
        for total, part in zip(gradients, found, strict=True):
            total += part
        return float(loss)

    batch = min(settings.batch, len(train))
    most = min(batch, model.samples.batch_max or batch)
    micro = budget.largest(f"training {tier}", most, lambda count: add(train[:count], 1.0))
    if budget.room is not None:
        session.evaluator.size = micro  # it scores in the same session
    rate, look = settings.rate or RATES[settings.optimizer, tier], -(-steps // LOOKS)
    waited = step = 0
    for step, rows in enumerate(_batches(train, batch, np.random.default_rng(settings.rng_seed)), start=1):
        for total in gradients:
            total[...] = 0
        count = task.count(rows)
        loss = sum(add(part, count) for part in pieces(rows, micro))
        if not math.isfinite(loss):
            settings.notice(f"{tier}: the loss is NaN or infinite after {step} steps; try a smaller --lr")
            break
        optimizer.step(gradients, rate * _share(step, steps))
        is_last = step == steps or progress.is_over
        if step % look == 0 or is_last:
            waited = 0 if best.update(session.evaluator.validation_score(values), values) else waited + 1
            progress.best = best.score
        progress.report(step, steps, loss)
        if is_last or waited >= PATIENCE:
            break
    return step, micro


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
