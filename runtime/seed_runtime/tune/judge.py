"""Scores on samples that aren't trained on: on some that choose, and on others that were held out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.skeletons.training import LOSS
from seed_runtime.tune.joined import JoinedModel, Run
from seed_runtime.tune.micro_batches import Budget, pieces
from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.samples import Rows, Split
from seed_runtime.tune.targets import Task

OUTPUTS = (LOSS,)
"""Outputs of the training graph that scores need."""


class Judge:
    """Scores a model on rows with labels, in an open session.

    Args:
        run: a session with OUTPUTS.
        model: that it is of.
        task: what outputs are compared with.
        split: what samples are for.
        budget: of memory; None where samples are computed one by one until `size` is set.
        later: memory that will be needed besides, and isn't held yet [B].

    Attributes:
        size: samples that are computed at once.
    """

    def __init__(
        self, run: Run, model: JoinedModel, task: Task, split: Split, budget: Budget | None, later: int = 0
    ) -> None:
        self._run, self._output, self._task, self._split = run, model.output, task, split
        self.size = 1
        if budget is None:
            return
        rows = split.held if len(split.held) > len(split.choose) else split.choose
        most = min(len(rows), model.samples.batch_max or len(rows))
        what = "scoring what isn't trained on"
        self.size = budget.largest(what, most, lambda count: self._part(rows[:count], 1.0, {}), later)

    def score(self, values: Mapping[str, Array]) -> Score:
        """Return the score, on the samples that choose, with some values of tensors in place of the learned ones."""
        return self._score(self._split.choose, values)

    def confirm(self, values: Mapping[str, Array]) -> Score:
        """Return the same on what was held out."""
        return self._score(self._split.held, values)

    def _score(self, chosen: Rows, values: Mapping[str, Array]) -> Score:
        if not all(np.isfinite(value).all() for value in values.values()):
            return UNUSABLE  # a model may make numbers of them all the same
        count = self._task.count(chosen)
        parts = [self._part(rows, count, values) for rows in pieces(chosen, self.size)]
        return self._task.score(sum(hits for hits, _ in parts), sum(loss for _, loss in parts), count)

    def _part(self, rows: Rows, count: float, values: Mapping[str, Array]) -> tuple[int, float]:
        y, loss = self._run(rows, [self._output, LOSS], self._task.feeds(rows, count), values)
        return self._task.hits(y, rows), float(loss)
