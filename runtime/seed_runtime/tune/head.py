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
from seed_runtime.tune.last_layer import ENDS, Head, Layout, sigmoid, softmax
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
"""Most positions that are fitted; of more, as many are drawn evenly."""
WIDTH_MOST: Final = 512
"""Most features whose covariance is held: 2 MiB of float64, a few times while a head is rounded."""
_COPIES: Final = 2
"""Copies of the head that are held at once: new values, and the best of those before them."""
_SQUARES: Final = 4
"""Squares of the smaller of samples and features, of float64: the products, their vectors, and what finds these."""
_CHANGES: Final = 5
"""Changes of scores or of the head that are held at once, of float64."""
_BLOCKS: Final = 5
"""Blocks of rows in float64 that are held at once."""
_ROUNDING_COPIES: Final = 7
"""Copies of the head that are held while it is rounded with regard to its inputs."""
_ROUNDING_SQUARES: Final = 5
"""Squares of the features of float64 that this takes, two of them within the inverse."""
_FEATURES_MOST: Final = 8 << 20
"""Most memory of features of samples that scores are of; where they take more, the whole model is run for each [B]."""
_AGREE: Final = 1e-2
"""Largest distance of what the layer gives from the model's output, as a share of its largest element."""


Values = dict[str, Array]


class Ridge:
    """Fits a head on features that are computed once.

    Memory: features and targets of ROWS_MAX positions at most, as float32, and what `fit` takes. Both are counted
    before anything is run.

    Args:
        model: with features.
        task: what outputs are compared with.
        rows: to train on.
        scored: samples that new heads will be scored on.
        budget: of memory.

    Attributes:
        scored: features of these samples, `(samples, positions, width)`; None where they take too much memory.
        size: samples that were computed at once.
        problem: why there is nothing to fit; "" where there is.

    Raises:
        MemoryBudgetError: what is certain to be held is more than the limit.
    """

    def __init__(self, model: JoinedModel, task: Task, rows: Rows, scored: Rows, budget: Budget) -> None:
        self._model, self._task, self._budget = model, task, budget
        self.scored: Array | None = None
        self.size = 0
        found = Layout.of(model, task.target(rows[:1]))
        self.problem = "" if found else "the last layer isn't linear in the features that the training graph names"
        if found is None:
            return
        self._layout, self._scored_rows = found, scored
        total = len(rows) * found.positions
        # One of each of as many parts of one length: with steps of one length, some positions would never be drawn.
        bounds = np.arange(min(total, ROWS_MAX) + 1) * total // min(total, ROWS_MAX)
        drawn = np.random.default_rng(0).integers(bounds[:-1], bounds[1:])
        self._rows = rows[np.unique(drawn // found.positions)]
        self._drawn = np.searchsorted(self._rows, rows[drawn // found.positions]) * found.positions
        self._drawn += drawn % found.positions
        count, self._is_scored_held = len(drawn), 4 * found.width * found.positions * len(scored) <= _FEATURES_MOST
        self._held = 4 * count * (found.width + 1 + 2 * found.classes)
        self._held += 4 * found.width * found.positions * len(scored) * self._is_scored_held
        budget.check("fitting the last layer", self._held + self.fitting_bytes)

    @property
    def fitting_bytes(self) -> int:
        """Memory that fitting takes besides features and targets, or rounding what was fitted [B]."""
        found, count = self._layout, len(self._drawn)
        smaller = min(count, found.width + 1)
        wide = _SQUARES * smaller**2 + _CHANGES * smaller * found.classes
        side = max(found.width + 1, found.classes)
        wide += _BLOCKS * min(count * side, max(WINDOW, side))
        fitting = 8 * wide + 4 * count * found.classes + _COPIES * self.head_bytes
        if found.width > WIDTH_MOST:
            return fitting
        return max(fitting, 8 * _ROUNDING_SQUARES * found.width**2 + _ROUNDING_COPIES * self.head_bytes)

    @property
    def head_bytes(self) -> int:
        """Memory of one copy of the head [B]."""
        return 4 * (self._layout.width + 1) * self._layout.classes

    def compute(self, run: RunsModel) -> None:
        """Compute the features of all samples that are needed.

        Args:
            run: an open session with FEATURES as output.

        Raises:
            MemoryBudgetError: one sample takes too much memory, with what will be held.
        """
        found, most = self._layout, min(len(self._rows), self._model.samples.batch_max or len(self._rows))
        what = "computing features"
        self.size = self._budget.largest(
            what, most, lambda count: self._features(run, self._rows[:count]), self._held, FORWARD_BYTES
        )
        count = len(self._drawn)
        # The last column is what a bias multiplies.
        self._x = np.ones((count, found.width + bool(found.bias)), np.float32)
        self._y, self._t = (np.empty((count, found.classes), np.float32) for _ in range(2))
        start = done = 0
        for part in pieces(self._rows, self.size):
            stop = start + len(part) * found.positions
            end = int(np.searchsorted(self._drawn, stop))
            if (features := self._features(run, part)) is None:
                return
            for out, each in zip((self._x[:, : found.width], self._y, self._t), features, strict=True):
                out[done:end] = each[self._drawn[done:end] - start]
            start, done = stop, end
        if not self._is_scored_held:
            return
        scored, done = np.empty((len(self._scored_rows), found.positions, found.width), np.float32), 0
        for part in pieces(self._scored_rows, self.size):
            if (features := self._features(run, part)) is None:
                return
            scored[done : done + len(part)] = features[0].reshape(len(part), found.positions, found.width)
            done += len(part)
        self.scored = scored

    def find(self) -> Head | None:
        """Return the head, after checking that it gives the model's outputs; None with a `problem` where it is none."""
        if not self.problem and not (np.isfinite(self._x).all() and np.isfinite(self._y).all()):
            self.problem = "the model makes NaN or infinities of these samples"
        if self.problem:
            return None
        self._budget.check("fitting the last layer", self.fitting_bytes)
        for is_transposed in self._layout.orientations:
            if (head := self._matching(is_transposed)) is not None:
                del self._y
                return head
        self.problem = "the last layer isn't linear in the features that the training graph names"
        return None

    def inputs(self, head: Head) -> dict[str, Inputs]:
        """Return what the matrix multiplies, by its name; nothing where there are too many features."""
        width = self._layout.width
        if width > WIDTH_MOST:
            return {}
        x = self._x[:, :width]
        mean = x.mean(axis=0, dtype=np.float64) if head.bias else np.zeros(width)
        covariance = np.zeros((width, width))
        for part in self._blocks():
            centred = x[part] - mean
            covariance += centred.T @ centred
        covariance /= len(x)
        inputs = Inputs(covariance.astype(np.float32), mean.astype(np.float32), head.is_transposed, head.bias)
        return {head.matrix: inputs}

    def fit(self, head: Head, progress: RunProgress) -> Iterator[Values]:
        """Yield new values of the head's tensors for each strength of the prior, the strongest first.

        Memory: see `fitting_bytes`.
        """
        x, scores = self._x, self._scores(head)
        # Of the smaller side: samples by samples, whose changes of the head are x.T @ moved, or features by features.
        is_wide = x.shape[1] > len(x)
        products = self._products(is_wide)
        sizes, vectors = np.linalg.eigh(products)
        sizes = np.maximum(sizes, 0)
        unit = max(float(sizes.sum()) / x.shape[1], 1e-12)
        curvature, residual = self._loss()
        moved = np.zeros((len(products), scores.shape[1]))
        for number, strength in enumerate(sorted(LAMBDAS, reverse=True), start=1):
            penalty = strength * unit
            solve = _solver(vectors, curvature * sizes + penalty)
            for _ in range(1 if self._task.loss != CROSS_ENTROPY else REGRESSIONS):
                progress.watch()
                right = -penalty * moved
                for part in self._blocks():
                    factor = products[part] if is_wide else x[part].astype(np.float64)
                    left = residual(scores[part] + factor @ moved, self._t[part])
                    if is_wide:
                        right[part] += left
                    else:
                        right += factor.T @ left
                moved += solve(right)
            progress.report(number, len(LAMBDAS))
            yield self._values(head, moved.astype(np.float32), is_wide)
            if progress.is_over:
                break

    def _blocks(self) -> Iterator[slice]:
        """Yield all rows in parts that take a window each."""
        count = len(self._x)
        size = max(1, WINDOW // max(min(count, self._x.shape[1]), self._layout.classes))
        return (slice(start, start + size) for start in range(0, count, size))

    def _products(self, is_wide: bool) -> F64:
        """Return products of samples with each other, or of features."""
        x = self._x
        found = np.zeros((min(x.shape), min(x.shape)))
        size = max(1, WINDOW // min(x.shape))
        for start in range(0, max(x.shape), size):
            part = (x[:, start : start + size] if is_wide else x[start : start + size]).astype(np.float64)
            found += part @ part.T if is_wide else part.T @ part
        return found

    def _features(self, run: RunsModel, rows: Rows) -> tuple[Array, Array, Array] | None:
        """Return features, outputs and targets, one position a row; None with a `problem` for others than the head's.

        What they are of is that of the first axes of each alike, as the axis of classes is the last one.
        """
        features, y = run(rows, [FEATURES, self._model.output], self._task.feeds(rows, 1.0))
        found, target = self._layout, self._task.target(rows)
        if features.shape[-1] != found.width or features.size != len(rows) * found.positions * found.width:
            self.problem = "the last layer isn't linear in the features that the training graph names"
            return None
        return features.reshape(-1, found.width), y.reshape(-1, found.classes), target.reshape(-1, found.classes)

    def _scores(self, head: Head) -> F32:
        """Return what the layer as it is gives."""
        values = {name: self._model.stored(name) for name in (head.matrix, head.bias) if name}
        return head.scores(self._x[:, : self._layout.width], values)

    def _values(self, head: Head, moved: F32, is_wide: bool) -> Values:
        """Return the layer's values; the last feature is the bias."""
        values = {name: self._model.stored(name) for name in (head.matrix, head.bias) if name}
        matrix = values[head.matrix].T if head.is_transposed else values[head.matrix]
        width, classes = matrix.shape
        size = max(1, WINDOW // classes)
        for start in range(0, width, size):
            part = slice(start, min(start + size, width))
            matrix[part] += self._x[:, part].T @ moved if is_wide else moved[part]
        if head.bias:
            values[head.bias] += moved.sum(axis=0) if is_wide else moved[-1]
        return values

    def _matching(self, is_transposed: bool) -> Head | None:
        """Return the layer with what gives the model's outputs behind it; None where nothing does."""
        matrix, bias = self._layout.matrix, self._layout.bias
        scores = self._scores(Head(matrix, bias, is_transposed, ENDS[0]))
        scale = max(float(np.abs(self._y).max(initial=0)), 1e-30)
        for end in ENDS if self._model.info.axis is not None else (sigmoid,):
            distances = (np.abs(end(scores[part]) - self._y[part]).max() for part in self._blocks())
            if all(distance <= _AGREE * scale for distance in distances):
                return Head(matrix, bias, is_transposed, end)
        return None

    def _loss(self) -> tuple[float, Callable[[F64, F32], F64]]:
        """Return a bound of the curvature in the scores, and how far scores are from targets."""
        if self._task.loss != CROSS_ENTROPY:
            return 1.0, lambda scores, target: target - scores
        if self._model.info.axis is None:
            return 0.25, lambda scores, target: target - sigmoid(scores)
        return 0.5, lambda scores, target: target - target.sum(axis=1, keepdims=True) * softmax(scores)


def _solver(vectors: F64, sizes: F64) -> Callable[[F64], F64]:
    """Return what solves for a symmetric matrix of these eigenvectors and eigenvalues."""
    return lambda right: vectors @ ((vectors.T @ right) / sizes[:, None])
