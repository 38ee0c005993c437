"""Tier `bn`: statistics of batch norms, estimated again on samples without labels.

A batch norm sees what those before it have normalized. So all are estimated again and again, until they change no more:
each time at least one more of a chain is right.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.tune.joined import JoinedModel, Run
from seed_runtime.tune.micro_batches import Budget, pieces
from seed_runtime.tune.progress import RunProgress, TimeUpError
from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.samples import Rows
from seed_runtime.tune.targets import Task

FEW: Final = 32
"""Samples of the first rounds."""
MANY: Final = 256
"""Most samples of the last rounds."""
LAST_ROUNDS: Final = 2
STILLED: Final = 1e-4
"""Share of the learned variance below which a channel counts as one that quantization stilled.

Its learned variance stays: to scale the rest of such channels up made the text-direction classifier of PP-OCR at a
twelfth of its size overflow in six rounds, where half of the channels of some norms have no variance left.
"""
STILL: Final = 0.02
"""Largest mean change of a batch norm's statistics, in its standard deviations, at which they count as settled."""
_LEAST: Final = 1e-12
"""Variance below which a channel counts as constant."""
Values = dict[str, Array]


class Statistics:
    """Estimates statistics in an open session that has them of each batch as outputs."""

    def __init__(self, model: JoinedModel, run: Run, task: Task, rows: Rows, budget: Budget) -> None:
        self._model, self._run, self._task = model, run, task
        self._outputs = statistic_outputs(model)
        most = min(len(rows), model.samples.batch_max or FEW, FEW)
        self.size = budget.largest("estimating batch norms", most, lambda count: self._measure(rows[:count], {}))

    def estimate(self, rows: Rows, progress: RunProgress) -> Values:
        """Return the statistics with which all batch norms see a mean of 0 and a variance of 1 on these samples."""
        few, many = rows[:: max(1, len(rows) // FEW)][:FEW], rows[:: max(1, len(rows) // MANY)][:MANY]
        values = {each.name: self._model.stored(each.name) for each in self._model.statistics}
        rounds = len(self._model.info.norms) + LAST_ROUNDS
        with contextlib.suppress(TimeUpError):
            for number in range(rounds):
                is_last = number >= rounds - LAST_ROUNDS
                found = self._seen(many if is_last else few, values)
                if not all(np.isfinite(each).all() for each in found.values()):
                    break  # what these samples make of the values before is no number, so those aren't better
                change = self._change(values, found)
                values = found
                progress.report(number + 1, rounds)
                if progress.is_over:
                    break
                if not is_last and change < STILL:
                    for _ in range(LAST_ROUNDS):
                        values = self._seen(many, values)
                    break
        return values

    def fit(self, rows: Rows, values: Mapping[str, Array]) -> Score:
        """Return how far statistics are from what batch norms see of other samples, as a score: 0 for the same.

        Args:
            rows: these samples.
            values: the statistics; those that aren't among them are the learned ones.
        """
        names = [each.name for each in self._model.statistics]
        used = {name: values[name] if name in values else self._model.stored(name) for name in names}
        mismatch = self._change(used, self._seen(rows, used))
        return Score(-mismatch, mismatch) if math.isfinite(mismatch) else UNUSABLE

    def _seen(self, rows: Rows, values: Values) -> Values:
        """Return means and variances over all rows, those of parts of them put together."""
        sums = [np.zeros(0)] * len(self._outputs)
        for part in pieces(rows, self.size):
            weight = len(part) / len(rows)
            found = [each.astype(np.float64) for each in self._measure(part, values)]
            for at in range(0, len(found), 2):
                mean, variance = found[at], found[at + 1]
                terms = weight * mean, weight * (variance + np.square(mean))
                sums[at], sums[at + 1] = (terms[0] + sums[at], terms[1] + sums[at + 1]) if sums[at].size else terms
        seen = {}
        for at, pair in enumerate(self._model.info.norms):
            mean, square = sums[2 * at], sums[2 * at + 1]
            seen[pair[0].name] = mean.astype(np.float32)
            learned, variance = self._model.stored(pair[1].name), np.maximum(square - np.square(mean), 0)
            seen[pair[1].name] = np.where(variance < STILLED * learned, learned, variance).astype(np.float32)
        return seen

    def _measure(self, rows: Rows, values: Values) -> list[Array]:
        return self._run(rows, self._outputs, self._task.feeds(rows, 1.0), values)

    def _change(self, before: Values, after: Values) -> float:
        changes = []
        for mean, variance in self._model.info.norms:
            spread = np.maximum(after[variance.name].astype(np.float64), _LEAST)
            moved = np.abs(after[mean.name] - before[mean.name]) / np.sqrt(spread)
            scaled = np.abs(np.log(np.maximum(before[variance.name].astype(np.float64), _LEAST) / spread)) / 2
            changes.append(float(np.mean(np.minimum(moved + scaled, 10.0))))
        return max(changes)


def statistic_outputs(model: JoinedModel) -> list[str]:
    """Return the outputs of the training graph that have the statistics, in the order of `JoinedModel.statistics`."""
    return [each.output for each in model.statistics]
