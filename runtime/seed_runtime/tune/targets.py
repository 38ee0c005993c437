"""What outputs are compared with: targets of a loss made of labels, and scores."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError, UsageError
from seed_runtime.skeletons.training import COSINE, SQUARED_ERROR, TARGET, TrainingInfo
from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.samples import Rows

CROSS_ENTROPY, SQUARES, DIRECTION = "cross-entropy", "squared-error", "cosine"
LOSSES: Final = (CROSS_ENTROPY, SQUARES, DIRECTION)
_SHARE_SLACK: Final = 1e-3
"""Largest distance of a sum of shares from 1 at which labels count as shares of classes."""


class Task:
    """A loss, and the labels that it compares outputs with.

    Args:
        info: of the training graph.
        labels: integers for classes, floats for shares of classes or for values; None where nothing is compared.
        loss: a word of `LOSSES`; None to choose by the labels.

    Raises:
        InputError: the labels don't fit the model's output.
    """

    def __init__(self, info: TrainingInfo, labels: Array | None, loss: str | None) -> None:
        self._info, self._labels = info, labels
        self._dims = info.target.dims or ()
        self.is_indexed = False
        """Whether labels are numbers of classes."""
        if loss is not None and loss not in LOSSES:
            raise UsageError(f"no loss is called {loss!r}; use one of {', '.join(LOSSES)}")
        self.loss = loss or CROSS_ENTROPY
        if labels is None:
            return
        if labels.dtype.kind in "biu" and loss in (None, CROSS_ENTROPY):
            self._take_classes(labels)
        elif labels.dtype.kind not in "biuf" or not self._fits(labels):
            self._refuse(labels)
        elif loss is None:
            self.loss = CROSS_ENTROPY if self._are_shares(labels) else SQUARES
        elif loss == CROSS_ENTROPY and not self._are_shares(labels):
            of_what = "between 0 and 1" if info.axis is None else "at least 0, with a sum of 1 for each decision"
            raise InputError(
                f"{LABELS!r} are no shares of classes: they must be {of_what}; use --loss {SQUARES} for other values"
            )

    @property
    def metric(self) -> str:
        """Name of the score."""
        return "accuracy" if self.is_indexed else f"negative {self.loss}"

    @property
    def classes(self) -> int:
        """Number of classes; 2 where each element is a decision."""
        return count_classes(self._info)

    def feeds(self, rows: Rows, count: float) -> dict[str, Array]:
        """Return target and factors for the mean over `count` comparisons, of which these rows are some."""
        named = {CROSS_ENTROPY: self._info.cross_entropy, SQUARES: SQUARED_ERROR, DIRECTION: COSINE}
        factors = {name: np.array((word == self.loss) / count, np.float32) for word, name in named.items()}
        return {TARGET: self.target(rows), **factors}

    def target(self, rows: Rows) -> Array:
        """Return what outputs of some samples are compared with, float32 of the output's shape."""
        if self._labels is None:
            sizes = [size if isinstance(size, int) else 1 for size in self._dims[1:]]
            return np.zeros((len(rows), *sizes), np.float32)
        labels, axis = self._labels[rows], self._info.axis
        if not self.is_indexed:
            return np.ascontiguousarray(labels, np.float32)
        if axis is None:
            return labels.reshape(len(rows), *(labels.shape[1:] or [1] * (len(self._dims) - 1))).astype(np.float32)
        places = np.arange(self.classes).reshape([-1 if at == axis else 1 for at in range(len(self._dims))])
        return np.asarray(np.expand_dims(labels, axis) == places, np.float32)

    def count(self, rows: Rows) -> float:
        """Return the number of comparisons of some samples, over which the loss is a mean: at least 1."""
        if self._labels is None:
            return 1.0
        labels = self._labels[rows]
        if self.loss == CROSS_ENTROPY and self._info.axis is not None:
            return max(1.0, float((labels >= 0).sum() if self.is_indexed else labels.sum()))
        return max(1.0, float(labels.size / labels.shape[-1] if self.loss == DIRECTION else labels.size))

    def hits(self, outputs: Array, rows: Rows) -> int:
        """Return how many decisions of some samples are right, where labels are classes."""
        if self._labels is None or not self.is_indexed:
            return 0
        labels = self._labels[rows]
        if self._info.axis is None:
            return int(((outputs > 0.5) == labels.reshape(outputs.shape)).sum())
        return int(((outputs.argmax(axis=self._info.axis) == labels) & (labels >= 0)).sum())

    def score(self, hits: int, loss: float, count: float) -> Score:
        """Return the score of all samples, UNUSABLE where the loss isn't finite.

        Args:
            hits: decisions that are right.
            loss: mean over `count`.
            count: comparisons.
        """
        if not math.isfinite(loss):
            return UNUSABLE
        return Score(hits / count if self.is_indexed else -loss, loss)

    def _take_classes(self, labels: Array) -> None:
        axis = self._info.axis
        if axis is None:
            is_shaped = labels.ndim in (1, len(self._dims)) and (labels.ndim > 1 or set(self._dims[1:]) <= {1})
        else:
            is_shaped = labels.ndim == len(self._dims) - 1
        if not is_shaped:
            self._refuse(labels)
        low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
        # Negative classes are positions that don't count; of a whole sample there would be nothing to learn.
        least = 0 if labels.ndim == 1 or axis is None else low
        if low < least or high >= self.classes:
            wrong = low if low < least else high
            raise InputError(
                f"{LABELS!r} holds class {wrong}, and the model has classes 0 to {self.classes - 1}; number them so"
            )
        self.is_indexed = True

    def _fits(self, labels: Array) -> bool:
        return labels.ndim == len(self._dims) and all(
            not isinstance(want, int) or want == size
            for want, size in zip(self._dims[1:], labels.shape[1:], strict=True)
        )

    def _are_shares(self, labels: Array) -> bool:
        if self._info.axis is None:
            return bool(((labels >= 0) & (labels <= 1)).all())
        sums = labels.sum(axis=self._info.axis)
        return bool((labels >= 0).all() and np.abs(sums - 1).max(initial=0) < _SHARE_SLACK)

    def _refuse(self, labels: Array) -> None:
        is_column = labels.ndim == 2 and labels.shape[1] == 1
        if labels.dtype.kind == "f" and labels.ndim < len(self._dims) and (labels == np.floor(labels)).all():
            raise InputError(f"{LABELS!r} is {labels.dtype}; give numbers of classes as integers: .astype(int)")
        if labels.dtype.kind in "biu" and is_column and self._info.axis is not None:
            raise InputError(f"{LABELS!r} has a second axis of length 1; give one number a sample: labels[:, 0]")
        sizes = ", ".join("?" if not isinstance(size, int) else str(size) for size in self._dims)
        raise InputError(
            f"{LABELS!r} is {labels.dtype}{list(labels.shape)}, and the model's output is [{sizes}]; give the number "
            f"of a class for each sample, or floats of the output's shape"
        )


def count_classes(info: TrainingInfo) -> int:
    """Return the number of classes of the output that is compared; 2 where each element is a decision."""
    size = None if info.axis is None or info.target.dims is None else info.target.dims[info.axis]
    return size if isinstance(size, int) else 2
