"""Scores on samples that aren't trained on: those for validation, and those that are held out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.skeletons.training import LOSS
from seed_runtime.tune.joined import JoinedModel, RunsModel
from seed_runtime.tune.micro_batches import FORWARD_BYTES, Budget, pieces
from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.samples import Rows, Split
from seed_runtime.tune.targets import Task

OUTPUTS = (LOSS,)
"""Outputs of the training graph that scores need."""


class Evaluator:
    """Scores a model on rows with labels.

    Args:
        run: a session with OUTPUTS, or the last layer on features of these rows.
        model: that it is of.
        task: what outputs are compared with.
        split: what samples are for.
        budget: of memory; None where samples are computed one by one until `size` is set.
        later: memory that will be needed besides, and isn't held yet [B].

    Attributes:
        size: samples that are computed at once.
    """

    def __init__(
        self, run: RunsModel, model: JoinedModel, task: Task, split: Split, budget: Budget | None, later: int = 0
    ) -> None:
        self._run, self._output, self._task, self._split = run, model.output, task, split
        self.size = 1
        if budget is None:
            return
        rows = split.held_out if len(split.held_out) > len(split.validation) else split.validation
        most = min(len(rows), model.samples.batch_max or len(rows))
        what = "scoring what isn't trained on"
        self.size = budget.largest(what, most, lambda count: self._part(rows[:count], 1.0, {}), later, FORWARD_BYTES)

    def validation_score(self, values: Mapping[str, Array]) -> Score:
        """Return the score on the validation samples, with some values of tensors in place of the learned ones."""
        return self._score(self._split.validation, values)

    def held_out_score(self, values: Mapping[str, Array]) -> Score:
        """Return the score on what was held out, with some values of tensors in place of the learned ones."""
        return self._score(self._split.held_out, values)

    def _score(self, rows: Rows, values: Mapping[str, Array]) -> Score:
        if not all(np.isfinite(value).all() for value in values.values()):
            return UNUSABLE  # a model may make numbers of them all the same
        count = self._task.count(rows)
        parts = [self._part(part, count, values) for part in pieces(rows, self.size)]
        return self._task.score(sum(hits for hits, _ in parts), sum(loss for _, loss in parts), count)

    def _part(self, rows: Rows, count: float, values: Mapping[str, Array]) -> tuple[int, float]:
        y, loss = self._run(rows, [self._output, LOSS], self._task.feeds(rows, count), values)
        return self._task.hits(y, rows), float(loss)
