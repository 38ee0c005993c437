"""Step "embeddings": one vector for a sample, and the similarity of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import OutputError
from seed_runtime.processing.answers import Answer, Facts, SampleAnswer, rounded
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep, one_row

MEAN: Final = "mean"
FIRST: Final = "first"
LAST: Final = "last"
MAX: Final = "max"
NONE: Final = "none"
_SHOWN: Final = 4


@dataclass(frozen=True)
class EmbeddingAnswer(Answer):
    """The vector of one sample."""

    values: Array
    kind = "embeddings"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"values": [rounded(value) for value in self.values]}

    def lines(self) -> Iterator[str]:
        """Yield one line with the first values."""
        first = " ".join(f"{value:.4f}" for value in self.values[:_SHOWN])
        yield f"{len(self.values)} values: {first}{' ...' if len(self.values) > _SHOWN else ''}"

    def compared(self, others: Sequence[SampleAnswer], column: int) -> Answer | None:
        """Return the cosine of each pair of samples."""
        vectors = [np.asarray(getattr(each.answers[column], "values", ())) for each in others]
        if len({vector.shape for vector in vectors}) != 1:
            return None
        rows = np.stack(vectors).astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # of vectors that aren't finite
            rows = rows / np.maximum(lengths, np.finfo(np.float64).tiny)
            return SimilarityAnswer(tuple(each.facts.source for each in others), rows @ rows.T)


@dataclass(frozen=True)
class SimilarityAnswer(Answer):
    """Cosines of all pairs of samples."""

    sources: tuple[str, ...]
    cosines: Array
    kind = "similarity"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"sources": list(self.sources), "cosines": [[rounded(x) for x in row] for row in self.cosines]}

    def lines(self) -> Iterator[str]:
        """Yield a line for each pair."""
        for row, first in enumerate(self.sources):
            for column in range(row + 1, len(self.sources)):
                yield f"{self.cosines[row, column]:7.4f}  {first}, {self.sources[column]}"


@dataclass(frozen=True)
class EmbeddingsStep:
    """Makes one vector of an output: one vector, or one for each token or frame."""

    where: str
    reads: Mapping[str, str]
    pooling: str
    normalize: bool
    kind: str = "embeddings"

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> EmbeddingAnswer:
        """Pool and normalize (see `OutputStep`)."""
        output = calls[-1][self.reads["vectors"]]
        if self.pooling == NONE:
            vector = one_row(self.where, output, 2).astype(np.float64)
        else:
            rows = one_row(self.where, output, 3).astype(np.float64)
            mask = np.ones(len(rows)) if facts.mask is None else facts.mask[0].astype(np.float64)
            if len(mask) != len(rows) or not mask.any():
                raise OutputError(self.where, f"{len(rows)} vectors are given for {len(mask)} tokens")
            vector = self._pooled(rows, mask)
        if self.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
        return EmbeddingAnswer(vector.astype(np.float32))

    def _pooled(self, rows: Array, mask: Array) -> Array:
        kept = rows[mask != 0]
        if self.pooling == MEAN:
            mean: Array = kept.mean(axis=0)
            return mean
        if self.pooling == MAX:
            largest: Array = kept.max(axis=0)
            return largest
        row: Array = kept[0 if self.pooling == FIRST else -1]
        return row


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    return EmbeddingsStep(
        where=fields.where,
        reads=fields.names("reads", ["vectors"]),
        pooling=fields.word("pooling", (MEAN, FIRST, LAST, MAX, NONE)),
        normalize=fields.flag("normalize", True),
    )
