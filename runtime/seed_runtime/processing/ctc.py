"""Step "ctc": text of an output that gives a character for each column, by connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.errors import OutputError
from seed_runtime.processing.answers import Answer, Facts, Mark, rounded
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.labels import NONE, SOFTMAX, activated
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep, one_row

FIRST: Final = "first"
LAST: Final = "last"


@dataclass(frozen=True)
class TextAnswer(Answer):
    """A text that was read."""

    text: str
    score: float
    """Mean probability of its characters; 0 without any."""
    kind = "ctc"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"text": self.text, "score": rounded(self.score)}

    def lines(self) -> Iterator[str]:
        """Yield the text."""
        yield self.text

    def marks(self) -> Iterator[Mark]:
        """Yield the text for the picture's corner."""
        yield Mark((), self.text)


@dataclass(frozen=True)
class CtcStep:
    """Reads the best character of each column; repeated ones are one, and blanks separate repeated ones."""

    where: str
    reads: Mapping[str, str]
    characters: tuple[str, ...]
    """Characters by their class; the blank is "". """
    activation: str
    kind: str = "ctc"

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> TextAnswer:
        """Read a line (see `OutputStep`)."""
        scores = one_row(self.where, calls[-1][self.reads["scores"]], 3)
        if scores.shape[1] != len(self.characters):
            given = f"{scores.shape[1]:,} classes"
            raise OutputError(self.where, f"there are {len(self.characters):,} characters for {given}")
        best = scores.argmax(axis=1)
        is_first = np.ones(len(best), bool)
        is_first[1:] = best[1:] != best[:-1]
        columns = [int(column) for column in np.flatnonzero(is_first) if self.characters[best[column]]]
        rows = activated(scores[columns].astype(np.float64), self.activation)
        probabilities = [row[best[column]] for row, column in zip(rows, columns, strict=True)]
        text = "".join(self.characters[best[column]] for column in columns)
        return TextAnswer(text, float(np.mean(probabilities)) if probabilities else 0.0)


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    characters = list(sources.lines(fields.text("characters"), fields.where))
    if fields.flag("space", False):
        characters.append(" ")
    characters.insert(0 if fields.word("blank", (FIRST, LAST), FIRST) == FIRST else len(characters), "")
    return CtcStep(
        where=fields.where,
        reads=fields.names("reads", ["scores"]),
        characters=tuple(characters),
        activation=fields.word("activation", (SOFTMAX, NONE), NONE),
    )
