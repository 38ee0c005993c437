"""Tier `head`: the last layer by ridge regression with the old layer as prior.

For squared errors that is one regression. The cross-entropy has no smaller curvature anywhere than a fixed matrix, so
that a few regressions with this matrix, each of what is left to explain, never raise it.
Source: Böhning, "Multinomial logistic regression algorithm" (Annals of the Institute of Statistical Mathematics, 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array
from seed_runtime.skeletons.training import FEATURES
from seed_runtime.tune.course import Course
from seed_runtime.tune.joined import JoinedModel, Run
from seed_runtime.tune.micro_batches import Budget, pieces
from seed_runtime.tune.samples import Rows
from seed_runtime.tune.targets import CROSS_ENTROPY, Task

F64 = npt.NDArray[np.float64]

LAMBDAS: Final = tuple(10.0**power for power in range(-4, 4))
"""Strengths of the prior that are tried, in mean squares of a feature over all samples together."""
REGRESSIONS: Final = 12
"""Regressions for one strength; they begin with what the stronger prior before it gave."""
ROWS_MAX: Final = 4096
"""Most positions that are fitted, where each sample has many."""
_AGREE: Final = 1e-2
"""Largest distance of what the layer gives from the model's output, as a share of its largest element."""


@dataclass(frozen=True)
class Head:
    """The last layer.

    Attributes:
        matrix: name of its weight.
        bias: name of its bias; "" for none.
        is_transposed: whether outputs are the weight's first axis.
    """

    matrix: str
    bias: str
    is_transposed: bool


Values = dict[str, Array]


class Ridge:
    """Fits a head on features that were computed once.

    Args:
        model: with a head.
        run: an open session with FEATURES as output.
        task: what outputs are compared with.
        rows: to train on.
        budget: of memory.
    """

    def __init__(self, model: JoinedModel, run: Run, task: Task, rows: Rows, budget: Budget) -> None:
        self._model, self._run, self._task = model, run, task
        most = min(len(rows), model.samples.batch_max or len(rows))
        self.size = budget.largest("computing features", most, lambda count: self._features(rows[:count]))
        parts = [self._features(part) for part in pieces(rows, self.size)]
        features, outputs, targets = (np.concatenate([part[at] for part in parts]) for at in range(3))
        kept = np.arange(len(features))[:: -(-len(features) // ROWS_MAX)]
        self._x, self._y, self._t = features[kept], outputs[kept], targets[kept]

    def find(self) -> Head | None:
        """Return the head, after checking that it gives the model's outputs; None where it is none."""
        tensors = [each for each in self._model.info.tensors if each.level == 0]
        matrices = [each for each in tensors if self._model.stored(each.name).ndim == 2]
        biases = [each for each in tensors if self._model.stored(each.name).ndim == 1]
        width, classes = self._x.shape[1], self._y.shape[1]
        if len(matrices) != 1 or len(biases) > 1 or len(tensors) > 1 + len(biases):
            return None
        shape = self._model.stored(matrices[0].name).shape
        bias = biases[0].name if biases else ""
        for is_transposed, wanted in ((False, (width, classes)), (True, (classes, width))):
            head = Head(matrices[0].name, bias, is_transposed)
            if shape == wanted and self._gives_outputs(head):
                return head
        return None

    def fit(self, head: Head, course: Course) -> Iterator[Values]:
        """Yield new values of the head's tensors for each strength of the prior, the strongest first."""
        x, (first, bias) = self._x, self._stored(head)
        if head.bias:
            x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
            first = np.concatenate([first, bias[None]])
        # Of the smaller side: samples by samples, or features by features.
        is_wide = x.shape[1] > len(x)
        sizes, vectors = np.linalg.eigh(x @ x.T if is_wide else x.T @ x)
        sizes = np.maximum(sizes, 0)
        unit = max(float(sizes.sum()) / x.shape[1], 1e-12)
        curvature, residual = self._loss()
        moved = np.zeros((len(x), self._y.shape[1]) if is_wide else first.shape)
        for number, strength in enumerate(sorted(LAMBDAS, reverse=True), start=1):
            penalty = strength * unit
            solve = _solver(vectors, curvature * sizes + penalty)
            for _ in range(1 if self._task.loss != CROSS_ENTROPY else REGRESSIONS):
                learned = first + (x.T @ moved if is_wide else moved)
                left = residual(x @ learned)
                moved = moved + solve((left if is_wide else x.T @ left) - penalty * moved)
            learned = first + (x.T @ moved if is_wide else moved)
            course.tell(number, len(LAMBDAS))
            yield self._values(head, learned)
            if course.is_over:
                break

    def _features(self, rows: Rows) -> tuple[F64, F64, F64]:
        """Return features, outputs and targets, one position a row."""
        features, y = self._run(rows, [FEATURES, self._model.output], {})
        target, axis = self._task.target(rows), self._model.info.axis
        rank = y.ndim
        y, target = (np.moveaxis(each, axis, -1) if axis is not None else each for each in (y, target))
        found = [each.reshape(-1, each.shape[-1]).astype(np.float64) for each in (features, y, target)]
        if axis is not None and axis != rank - 1:
            return found[0][:0], found[1][:0], found[2][:0]
        return found[0], found[1], found[2]

    def _stored(self, head: Head) -> tuple[F64, F64]:
        matrix = self._model.stored(head.matrix).astype(np.float64)
        bias = self._model.stored(head.bias).astype(np.float64) if head.bias else np.zeros(self._y.shape[1])
        return (matrix.T if head.is_transposed else matrix), bias

    def _values(self, head: Head, learned: F64) -> Values:
        matrix = learned[:-1] if head.bias else learned
        stored = np.ascontiguousarray(matrix.T if head.is_transposed else matrix, np.float32)
        return {head.matrix: stored} | ({head.bias: learned[-1].astype(np.float32)} if head.bias else {})

    def _gives_outputs(self, head: Head) -> bool:
        matrix, bias = self._stored(head)
        scores = self._x @ matrix + bias
        scale = max(float(np.abs(self._y).max(initial=0)), 1e-30)
        candidates: tuple[F64, ...] = (scores, _softmax(scores), _sigmoid(scores), np.log(_softmax(scores)))
        return any(float(np.abs(each - self._y).max(initial=0)) <= _AGREE * scale for each in candidates)

    def _loss(self) -> tuple[float, Callable[[F64], F64]]:
        """Return a bound of the curvature in the scores, and how far scores are from what they should be."""
        if self._task.loss != CROSS_ENTROPY:
            return 1.0, lambda scores: self._t - scores
        if self._model.info.axis is None:
            return 0.25, lambda scores: self._t - _sigmoid(scores)
        weights = self._t.sum(axis=1, keepdims=True)
        return 0.5, lambda scores: self._t - weights * _softmax(scores)


def _solver(vectors: F64, sizes: F64) -> Callable[[F64], F64]:
    """Return what solves for a symmetric matrix of these eigenvectors and eigenvalues."""
    return lambda right: vectors @ ((vectors.T @ right) / sizes[:, None])


def _softmax(scores: F64) -> F64:
    found: F64 = np.exp(scores - scores.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def _sigmoid(scores: F64) -> F64:
    found: F64 = 0.5 * (1 + np.tanh(scores / 2))
    return found
