"""The last layer of a model by itself: what it makes of features that were computed once, and the loss of that.

Scoring values of that layer then takes one product of matrices, and no session of the model is open meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array, Feeds
from seed_runtime.skeletons.training import LOSS, SQUARED_ERROR, TARGET
from seed_runtime.tune.joined import JoinedModel, Watch
from seed_runtime.tune.samples import Rows

Floats = npt.NDArray[np.floating[Any]]
End = Callable[[Floats], Floats]
"""What a model makes of the scores of its last layer."""


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
            found += values[self.bias].reshape(-1)
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


@dataclass(frozen=True)
class Layout:
    """What tensors say of the last layer before anything is run.

    Attributes:
        matrix: name of its weight.
        bias: name of its bias; "" for none.
        width: number of its features.
        classes: number of its scores for each position.
        positions: vectors of features that one sample has.
        orientations: whether outputs may be the weight's first axis; both where it is square.
    """

    matrix: str
    bias: str
    width: int
    classes: int
    positions: int
    orientations: tuple[bool, ...]

    @classmethod
    def of(cls, model: JoinedModel, target: Array) -> Layout | None:
        """Return the layout of a model's last layer; None where its tensors are none of one.

        Args:
            model: with features.
            target: what the output of one sample is compared with.
        """
        axis, classes = model.info.axis, target.shape[-1]
        if target.ndim < 2 or axis not in (None, target.ndim - 1) or not target.size:
            return None
        tensors = [(each.name, model.dims_of(each.hole)) for each in model.info.tensors if each.level == 0]
        pairs = permutations(tensors) if len(tensors) == 2 else [(each, ("", (classes,))) for each in tensors[:1]]
        for (matrix, dims), (bias, bias_dims) in pairs if len(tensors) < 3 else ():
            # Some biases have an axis of 1 for the samples.
            if len(dims) != 2 or not min(dims) or bias_dims[-1:] != (classes,) or prod(bias_dims) != classes:
                continue
            orientations = tuple(is_transposed for is_transposed in (False, True) if dims[not is_transposed] == classes)
            if orientations:
                return cls(matrix, bias, dims[orientations[0]], classes, target.size // classes, orientations)
        return None


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
        }
        return sum(float(targets[name]) * each() for name, each in sums.items() if targets[name])


def _cross_entropy(scores: Array, target: Array) -> float:
    return -float(np.sum(target * log_softmax(scores), dtype=np.float64))


def _decisions(scores: Array, target: Array) -> float:
    """Return the cross-entropy of decisions between two classes, one an element."""
    found = np.maximum(scores, 0) - scores * target + np.log1p(np.exp(-np.abs(scores)))
    return float(np.sum(found, dtype=np.float64))
