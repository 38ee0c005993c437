"""Answers of steps behind a model, and what a step before it notes for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from seed_runtime.backends import Array


@dataclass(frozen=True)
class Mark:
    """Something to draw into a picture."""

    corners: tuple[tuple[float, float], ...]
    """Corners of a polygon, x and y [pixel]; none for a text in the picture's corner."""
    text: str


def rounded(value: float, digits: int = 6) -> float | None:
    """Return a number for JSON; None for NaN and infinities, which it doesn't have."""
    return round(float(value), digits) if math.isfinite(value) else None


class Answer:
    """What one step says of one sample."""

    kind = ""
    """Kind of the step."""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """Yield it as lines for people. They may hold any characters: escape them before they are printed."""
        raise NotImplementedError

    def marks(self) -> Iterator[Mark]:
        """Yield what of it can be drawn."""
        return iter(())

    def compared(self, others: Sequence[SampleAnswer], column: int) -> Answer | None:
        """Return a comparison with what the same step says of other samples, which is shown in its place.

        Args:
            others: all samples, this one among them.
            column: position of the step.
        """
        return None


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on the canvas that a model sees: x on the canvas is left + scale_x * x in the picture."""

    width: int
    """Width of the picture itself [pixel]."""
    height: int
    scale_x: float
    scale_y: float
    left: float
    top: float
    canvas_width: int
    canvas_height: int


@dataclass
class Facts:
    """What steps before the model note of a sample for those behind it."""

    source: str
    placement: Placement | None = None
    """Of its picture."""
    mask: Array | None = None
    """1 where a token is one of the text, and 0 where it fills up; `(1, tokens)`."""
    frame_seconds: float | None = None
    """Time from one frame of sound to the next [s]."""
    seconds: float | None = None
    """Length of the sound [s]."""
    top: int | None = None
    """Largest number of labels or boxes that the user asks for; None for the step's own."""
    notes: list[str] = field(default_factory=list)
    """Lines for the user, such as that a text was cut."""


@dataclass(frozen=True)
class SampleAnswer:
    """All that is said of one sample."""

    facts: Facts
    answers: tuple[Answer, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "source": self.facts.source,
            "notes": list(self.facts.notes),
            "outputs": [{"kind": each.kind, **each.as_json()} for each in self.answers],
        }


def comparisons(samples: Sequence[SampleAnswer]) -> dict[int, Answer]:
    """Compare what each step says of several samples, for kinds that can be compared; by the steps' positions."""
    if len(samples) < 2:
        return {}
    found = {}
    for column, first in enumerate(samples[0].answers):
        if (comparison := first.compared(samples, column)) is not None:
            found[column] = comparison
    return found
