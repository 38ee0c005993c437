"""Tier `head`: the last layer by ridge regression with the old layer as prior.

For squared errors that is one regression. The cross-entropy has no smaller curvature anywhere than a fixed matrix, so
that a few regressions with this matrix, each of what is left to explain, never raise it.
Source: Böhning, "Multinomial logistic regression algorithm" (Annals of the Institute of Statistical Mathematics, 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array
from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.skeletons.training import FEATURES
from seed_runtime.tune.joined import JoinedModel, RunsModel
from seed_runtime.tune.last_layer import ENDS, Head, sigmoid, softmax
from seed_runtime.tune.micro_batches import FORWARD_BYTES, Budget, pieces
from seed_runtime.tune.progress import RunProgress
from seed_runtime.tune.rounding import Inputs
from seed_runtime.tune.samples import Rows
from seed_runtime.tune.targets import CROSS_ENTROPY, Task

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LAMBDAS: Final = tuple(10.0**power for power in range(-4, 4))
"""Strengths of the prior that are tried, in mean squares of a feature over all samples together."""
REGRESSIONS: Final = 12
"""Regressions for one strength; they begin with what the stronger prior before it gave."""
ROWS_MAX: Final = 4096
"""Most positions that are fitted, where each sample has many."""
WIDTH_MOST: Final = 512
"""Most features whose covariance is held: 2 MiB of float64, a few times while a head is rounded."""
_COPIES: Final = 3
"""Copies of the head that are held at once."""
_SQUARES: Final = 4
"""Squares of the smaller of samples and features, of float64: the products, their vectors, and what finds these."""
_ROWS: Final = 5
"""Arrays of scores of all samples that are held at once, of float64."""
_FEATURES_MOST: Final = 8 << 20
"""Most memory of features of samples that scores are of; where they take more, the whole model is run for each [B]."""
_AGREE: Final = 1e-2
"""Largest distance of what the layer gives from the model's output, as a share of its largest element."""


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

    def __init__(self, model: JoinedModel, run: RunsModel, task: Task, rows: Rows, budget: Budget) -> None:
        self._model, self._run, self._task = model, run, task
        most = min(len(rows), model.samples.batch_max or len(rows))
        what = "computing features"
        self.size = budget.largest(what, most, lambda count: self._features(rows[:count]), useful=FORWARD_BYTES)
        parts = []
        for part in pieces(rows, self.size):
            found = self._features(part)
            # As many of each part as all of them may have.
            stride = max(1, -(-len(found[0]) * len(rows) // (len(part) * ROWS_MAX)))
            parts.append([each[::stride].copy() for each in found])
        self._x, self._y, self._t = (np.concatenate([part[at] for part in parts]) for at in range(3))

    def features_of(self, rows: Rows) -> Array | None:
        """Compute features of other samples, `(samples, positions, width)`; None where they take too much memory."""
        parts = list[Array]()
        for part in pieces(rows, self.size):
            found = self._run(part, [FEATURES, self._model.output], self._task.feeds(part, 1.0))[0]
            if found.nbytes * len(rows) > _FEATURES_MOST * len(part):
                return None
            parts.append(found.reshape(len(part), -1, found.shape[-1]))
        return np.concatenate(parts)

    def find(self) -> Head | None:
        """Return the head, after checking that it gives the model's outputs; None where it is none."""
        tensors = [(each, self._model.dims_of(each.hole)) for each in self._model.info.tensors if each.level == 0]
        width, classes = self._x.shape[1], self._y.shape[1]
        matrices = [(each, dims) for each, dims in tensors if len(dims) == 2]
        biases = [each for each, dims in tensors if dims == (classes,)]
        if not len(self._x) or len(matrices) != 1 or len(biases) > 1 or len(tensors) > 1 + len(biases):
            return None
        matrix, shape = matrices[0]
        bias = biases[0].name if biases else ""
        for is_transposed, wanted in ((False, (width, classes)), (True, (classes, width))):
            if shape == wanted and (head := self._matching(matrix.name, bias, is_transposed)) is not None:
                return head
        return None

    @property
    def fitting_bytes(self) -> int:
        """Memory that fitting takes besides what is held [B]."""
        (count, width), classes = self._x.shape, self._y.shape[1]
        wide = _SQUARES * min(count, width + 1) ** 2 + count * (width + 1 + _ROWS * classes)
        return int(8 * wide + 4 * _COPIES * width * classes)

    def inputs(self, head: Head) -> dict[str, Inputs]:
        """Return what the matrix multiplies, by its name; nothing where there are too many features."""
        if self._x.shape[1] > WIDTH_MOST:
            return {}
        mean = self._x.mean(axis=0) if head.bias else np.zeros(self._x.shape[1])
        centred = self._x - mean
        covariance = (centred.T @ centred / len(centred)).astype(np.float32)
        return {head.matrix: Inputs(covariance, mean.astype(np.float32), head.is_transposed, head.bias)}

    def fit(self, head: Head, progress: RunProgress) -> Iterator[Values]:
        """Yield new values of the head's tensors for each strength of the prior, the strongest first.

        Memory: the head a few times as float32, and squares of the smaller of samples and features.
        """
        scores = self._scores(head).astype(np.float64)
        x = np.concatenate([self._x, np.ones((len(self._x), 1))], axis=1) if head.bias else self._x
        # Of the smaller side: samples by samples, whose changes of the head are x.T @ moved, or features by features.
        is_wide = x.shape[1] > len(x)
        products = x @ x.T if is_wide else x.T @ x
        sizes, vectors = np.linalg.eigh(products)
        sizes = np.maximum(sizes, 0)
        unit = max(float(sizes.sum()) / x.shape[1], 1e-12)
        curvature, residual = self._loss()
        moved = np.zeros((len(products), scores.shape[1]))
        for number, strength in enumerate(sorted(LAMBDAS, reverse=True), start=1):
            penalty = strength * unit
            solve = _solver(vectors, curvature * sizes + penalty)
            for _ in range(1 if self._task.loss != CROSS_ENTROPY else REGRESSIONS):
                left = residual(scores + (products if is_wide else x) @ moved)
                moved += solve((left if is_wide else x.T @ left) - penalty * moved)
            progress.report(number, len(LAMBDAS))
            yield self._values(head, moved.astype(np.float32), is_wide)
            if progress.is_over:
                break

    def _features(self, rows: Rows) -> tuple[F64, F64, F64]:
        """Return features, outputs and targets, one position a row."""
        features, y = self._run(rows, [FEATURES, self._model.output], self._task.feeds(rows, 1.0))
        target, axis = self._task.target(rows), self._model.info.axis
        rank = y.ndim
        y, target = (np.moveaxis(each, axis, -1) if axis is not None else each for each in (y, target))
        found = [each.reshape(-1, each.shape[-1]).astype(np.float64) for each in (features, y, target)]
        if axis is not None and axis != rank - 1:
            return found[0][:0], found[1][:0], found[2][:0]
        return found[0], found[1], found[2]

    def _scores(self, head: Head) -> F32:
        """Return what the layer as it is gives."""
        return head.scores(self._x, {name: self._model.stored(name) for name in (head.matrix, head.bias) if name})

    def _values(self, head: Head, moved: F32, is_wide: bool) -> Values:
        """Return the layer's values; the last feature is the bias."""
        values = {name: self._model.stored(name) for name in (head.matrix, head.bias) if name}
        matrix = values[head.matrix].T if head.is_transposed else values[head.matrix]
        width, classes = matrix.shape
        x = self._x.astype(np.float32) if is_wide else None
        size = max(1, WINDOW // classes)
        for start in range(0, width, size):
            part = slice(start, min(start + size, width))
            matrix[part] += moved[part] if x is None else x[:, part].T @ moved
        if head.bias:
            values[head.bias] += moved[-1] if x is None else moved.sum(axis=0)
        return values

    def _matching(self, matrix: str, bias: str, is_transposed: bool) -> Head | None:
        """Return the layer of these tensors with what gives the model's outputs behind it; None where nothing does."""
        scores = self._scores(Head(matrix, bias, is_transposed, ENDS[0])).astype(np.float64)
        scale = max(float(np.abs(self._y).max(initial=0)), 1e-30)
        for end in ENDS if self._model.info.axis is not None else (sigmoid,):
            if float(np.abs(end(scores) - self._y).max(initial=0)) <= _AGREE * scale:
                return Head(matrix, bias, is_transposed, end)
        return None

    def _loss(self) -> tuple[float, Callable[[F64], F64]]:
        """Return a bound of the curvature in the scores, and how far scores are from what they should be."""
        if self._task.loss != CROSS_ENTROPY:
            return 1.0, lambda scores: self._t - scores
        if self._model.info.axis is None:
            return 0.25, lambda scores: self._t - sigmoid(scores)
        weights = self._t.sum(axis=1, keepdims=True)
        return 0.5, lambda scores: self._t - weights * softmax(scores)


def _solver(vectors: F64, sizes: F64) -> Callable[[F64], F64]:
    """Return what solves for a symmetric matrix of these eigenvectors and eigenvalues."""
    return lambda right: vectors @ ((vectors.T @ right) / sizes[:, None])
