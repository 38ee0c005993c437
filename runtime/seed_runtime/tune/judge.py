"""Scores on the samples that are held out."""

from __future__ import annotations

from collections.abc import Mapping

from seed_runtime.backends import Array
from seed_runtime.skeletons.training import LOSS
from seed_runtime.tune.joined import JoinedModel, Run
from seed_runtime.tune.micro_batches import Budget, pieces
from seed_runtime.tune.records import Score
from seed_runtime.tune.samples import Rows
from seed_runtime.tune.targets import Task

OUTPUTS = (LOSS,)
"""Outputs of the training graph that scores need."""


class Judge:
    """Scores a model on rows with labels, in an open session.

    Args:
        run: a session with OUTPUTS.
        model: that it is of.
        task: what outputs are compared with.
        rows: the samples that are held out.
        budget: of memory; None where samples are computed one by one until `size` is set.
        later: memory that will be needed besides, and isn't held yet [B].

    Attributes:
        size: samples that are computed at once.
    """

    def __init__(
        self, run: Run, model: JoinedModel, task: Task, rows: Rows, budget: Budget | None, later: int = 0
    ) -> None:
        self._run, self._output, self._task, self._rows = run, model.output, task, rows
        self.size = 1
        if budget is None:
            return
        most = min(len(rows), model.samples.batch_max or len(rows))
        what = "scoring what is held out"
        self.size = budget.largest(what, most, lambda count: self._part(rows[:count], 1.0, {}), later)

    def score(self, values: Mapping[str, Array] | None = None) -> Score:
        """Return the score with some values of tensors in place of the learned ones."""
        count = self._task.count(self._rows)
        parts = [self._part(rows, count, values or {}) for rows in pieces(self._rows, self.size)]
        return self._task.score(sum(hits for hits, _ in parts), sum(loss for _, loss in parts), count)

    def _part(self, rows: Rows, count: float, values: Mapping[str, Array]) -> tuple[int, float]:
        y, loss = self._run(rows, [self._output, LOSS], self._task.feeds(rows, count), values)
        return self._task.hits(y, rows), float(loss)
