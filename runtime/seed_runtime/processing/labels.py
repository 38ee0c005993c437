"""Step "labels": names for a vector of scores, the highest first or all above a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import OutputError, OutputLimitError
from seed_runtime.limits import LABELS_MAX
from seed_runtime.processing.answers import Answer, Facts, Mark, rounded
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep

SOFTMAX: Final = "softmax"
SIGMOID: Final = "sigmoid"
NONE: Final = "none"
_TOP: Final = 5


@dataclass(frozen=True)
class Label:
    """One label of an answer."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class LabelsAnswer(Answer):
    """Labels of one sample, the highest score first."""

    labels: tuple[Label, ...]
    kind = "labels"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "labels": [{"index": one.index, "label": one.label, "score": rounded(one.score)} for one in self.labels]
        }

    def lines(self) -> Iterator[str]:
        """Yield a line for each label."""
        if not self.labels:
            yield "no label reaches the threshold"
        for one in self.labels:
            yield f"{one.score:7.4f}  {one.label}"

    def marks(self) -> Iterator[Mark]:
        """Yield the labels for the picture's corner."""
        for one in self.labels:
            yield Mark((), f"{one.label} {one.score:.2f}")


@dataclass(frozen=True)
class LabelsStep:
    """Names the scores of an output."""

    where: str
    reads: Mapping[str, str]
    labels: tuple[str, ...]
    """Labels by their index; none to show indices."""
    activation: str
    top: int
    """Largest number of labels in an answer."""
    threshold: float | None
    """Least score of a label; None for no bound."""
    kind: str = "labels"

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> LabelsAnswer:
        """Name the highest scores (see `OutputStep`)."""
        scores = activated(self._scores(calls[-1][self.reads["scores"]]), self.activation)
        # Stable, so that equal scores are in the order of their classes on every machine.
        order = np.argsort(-scores, kind="stable")[: facts.top or self.top]
        return LabelsAnswer(
            tuple(
                Label(int(index), name_of(self.labels, int(index)), float(scores[index]))
                for index in order
                if self.threshold is None or scores[index] >= self.threshold
            )
        )

    def _scores(self, output: Array) -> Array:
        if output.dtype.kind not in "fiu" or output.ndim == 0 or output.shape[:-1] != (1,) * (output.ndim - 1):
            raise OutputError(
                self.where, f"one vector of scores is needed; the model gave {output.dtype}{list(output.shape)}"
            )
        scores = output.reshape(-1)
        if len(scores) > LABELS_MAX:
            raise OutputLimitError(f"{self.where}: scores", len(scores), LABELS_MAX)
        if self.labels and len(scores) != len(self.labels):
            raise OutputError(self.where, f"there are {len(self.labels):,} labels for {len(scores):,} scores")
        return scores.astype(np.float64)


def activated(scores: Array, activation: str) -> Array:
    """Return scores as probabilities, along the last axis."""
    if activation == SOFTMAX:
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        found: Array = powers / powers.sum(axis=-1, keepdims=True)
        return found
    if activation == SIGMOID:
        # Without an overflow on either side.
        below: Array = 0.5 * (1.0 + np.tanh(0.5 * scores))
        return below
    return scores


def name_of(labels: Sequence[str], index: int) -> str:
    """Return the label of a class; its number where there is none."""
    return labels[index] if 0 <= index < len(labels) else f"class {index}"


def read_labels(fields: Fields, sources: Sources) -> tuple[str, ...]:
    """Read the field `labels`, the name of a text with one label a line; none where it is left out."""
    name = fields.text("labels", "")
    return sources.lines(name, fields.where) if name else ()


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    return LabelsStep(
        where=fields.where,
        reads=fields.names("reads", ["scores"]),
        labels=read_labels(fields, sources),
        activation=fields.word("activation", (SOFTMAX, SIGMOID, NONE)),
        top=fields.integer("top", 1, LABELS_MAX, _TOP),
        threshold=fields.number("threshold", -1e30, 1e30, None),
    )
