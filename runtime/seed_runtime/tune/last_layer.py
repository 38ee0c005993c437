"""The last layer of a model by itself: what it makes of features that were computed once, and the loss of that.

Scoring values of that layer then takes one product of matrices, and no session of the model is open meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array, Feeds
from seed_runtime.skeletons.training import COSINE, LOSS, SQUARED_ERROR, TARGET
from seed_runtime.tune.joined import JoinedModel, Watch
from seed_runtime.tune.samples import Rows

Floats = npt.NDArray[np.floating[Any]]
End = Callable[[Floats], Floats]
"""What a model makes of the scores of its last layer."""

_LEAST_SQUARE: Final = 1e-24
"""Added to squared lengths, so that a vector of zeros has a cosine of 0."""


@dataclass(frozen=True)
class Head:
    """The last layer.

    Attributes:
        matrix: name of its weight.
        bias: name of its bias; "" for none.
        is_transposed: whether outputs are the weight's first axis.
        end: what the model makes of its scores.
    """

    matrix: str
    bias: str
    is_transposed: bool
    end: End

    def scores(self, features: Floats, values: Mapping[str, Array]) -> Array:
        """Return what the layer gives for features in rows, float32."""
        matrix = values[self.matrix]
        found: Array = features.astype(np.float32, copy=False) @ (matrix.T if self.is_transposed else matrix)
        if self.bias:
            found += values[self.bias]
        return found


def softmax(scores: Floats) -> Floats:
    """Return shares of classes, one row for each decision."""
    found: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found /= found.sum(axis=-1, keepdims=True)
    return found


def log_softmax(scores: Floats) -> Floats:
    """Return the logarithms of shares of classes."""
    found: Floats = scores - scores.max(axis=-1, keepdims=True)
    found -= np.log(np.exp(found).sum(axis=-1, keepdims=True))
    return found


def sigmoid(scores: Floats) -> Floats:
    """Return the share of each element's decision."""
    found: Floats = 0.5 * (1 + np.tanh(scores / 2))
    return found


ENDS: Final[tuple[End, ...]] = (lambda scores: scores, softmax, log_softmax)
"""What a model may make of scores of classes; of decisions that are each their own it makes the sigmoid."""


class LayerRun:
    """Runs the last layer on features, as a session runs the model (`RunsModel`).

    Args:
        model: that the layer is of.
        head: the layer.
        rows: samples whose features are given, in ascending order.
        features: of them, `(samples, positions, width)`, float32.
        watch: called before each run.
    """

    def __init__(self, model: JoinedModel, head: Head, rows: Rows, features: Array, watch: Watch) -> None:
        self._model, self._head, self._rows, self._features, self._watch = model, head, rows, features, watch

    def __call__(
        self, rows: Rows, outputs: Sequence[str], targets: Feeds, values: Mapping[str, Array] | None = None
    ) -> list[Array]:
        """Return the model's output and its loss for some of the samples (see `RunsModel`)."""
        self._watch()
        head, target = self._head, targets[TARGET]
        names = [name for name in (head.matrix, head.bias) if name]
        used = {name: values[name] if values and name in values else self._model.stored(name) for name in names}
        features = self._features[np.searchsorted(self._rows, rows)]
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that isn't finite is a score, not a mistake
            scores = head.scores(features.reshape(-1, features.shape[-1]), used).reshape(target.shape)
            y = np.asarray(head.end(scores))
            found = {self._model.output: y, LOSS: np.asarray(self._loss(scores, y, targets))}
        return [found[name] for name in outputs]

    def _loss(self, scores: Array, y: Array, targets: Feeds) -> float:
        """Return the sums of SPEC.md ("Training graph"), each times its factor."""
        target, info = targets[TARGET], self._model.info
        sums: dict[str, Callable[[], float]] = {
            info.cross_entropy: lambda: (_decisions if info.axis is None else _cross_entropy)(scores, target),
            SQUARED_ERROR: lambda: float(np.sum(np.square(y - target), dtype=np.float64)),
            COSINE: lambda: _cosine(y, target),
        }
        return sum(float(targets[name]) * each() for name, each in sums.items() if targets[name])


def _cross_entropy(scores: Array, target: Array) -> float:
    return -float(np.sum(target * log_softmax(scores), dtype=np.float64))


def _decisions(scores: Array, target: Array) -> float:
    """Return the cross-entropy of decisions between two classes, one an element."""
    found = np.maximum(scores, 0) - scores * target + np.log1p(np.exp(-np.abs(scores)))
    return float(np.sum(found, dtype=np.float64))


def _cosine(y: Array, target: Array) -> float:
    lengths = [np.sqrt(np.square(each).sum(axis=-1) + np.float32(_LEAST_SQUARE)) for each in (y, target)]
    return float(np.sum(1 - (y * target).sum(axis=-1) / (lengths[0] * lengths[1]), dtype=np.float64))
