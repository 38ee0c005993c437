"""Step "segments": from when to when a probability is high, such as that of speech in each frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, OutputError
from seed_runtime.processing.answers import Answer, Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep

_ROUNDING: Final = 1e-6
"""Share of a frame by which a time may seem to need one more."""


@dataclass(frozen=True)
class SegmentsAnswer(Answer):
    """Segments of a sound, in their order."""

    segments: tuple[tuple[float, float], ...]
    """Beginning and end of each [s]."""
    kind = "segments"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"segments": [{"start": round(start, 3), "end": round(end, 3)} for start, end in self.segments]}

    def lines(self) -> Iterator[str]:
        """Yield a line for each segment."""
        if not self.segments:
            yield "no segment"
        for start, end in self.segments:
            yield f"{start:8.2f} s to {end:8.2f} s"


@dataclass(frozen=True)
class SegmentsStep:
    """Joins frames whose probability is high."""

    where: str
    reads: Mapping[str, str]
    threshold: float
    """Probability with which a segment begins."""
    end_threshold: float
    """Probability below which it may end."""
    least: float
    """Shortest segment [s]."""
    gap: float
    """Shortest pause that ends one [s]."""
    margin: float
    """What is added at both ends [s]."""
    kind: str = "segments"

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> SegmentsAnswer:
        """Find segments (see `OutputStep`)."""
        if facts.frame_seconds is None or facts.seconds is None:
            raise FormatError(self.where, "segments are of sound, and no step before the model reads any")
        rows = [np.ravel(call[self.reads["probability"]]) for call in calls]
        if any(row.dtype.kind != "f" or len(row) == 0 for row in rows):
            raise OutputError(self.where, "an output of probabilities is needed")
        step = facts.frame_seconds / len(rows[0])
        found = self.joined(np.concatenate(rows), step)
        last, segments = 0.0, []
        for start, end in found:
            # Margins of two segments don't overlap.
            first = max(last, start - self.margin)
            last = min(end + self.margin, facts.seconds)
            if first < last:
                segments.append((first, last))
        return SegmentsAnswer(tuple(segments))

    def joined(self, probabilities: Array, step: float) -> list[tuple[float, float]]:
        """Return beginning and end of each segment [s], without margins.

        Args:
            probabilities: of frames.
            step: time from one to the next [s].
        """
        # In frames: sums of their times would decide by rounding.
        gap, least = (math.ceil(time / step - _ROUNDING) for time in (self.gap, self.least))
        found: list[tuple[int, int]] = []
        start = silence = None
        for index, value in enumerate(probabilities.tolist()):
            if value >= self.threshold:
                silence = None
                start = index if start is None else start
            elif start is not None and value < self.end_threshold:
                silence = index if silence is None else silence
                if index + 1 - silence >= gap:
                    found.append((start, silence))
                    start = silence = None
        if start is not None:
            found.append((start, len(probabilities) if silence is None else silence))
        return [(first * step, last * step) for first, last in found if last - first >= least]


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    threshold = fields.number("threshold", 0.0, 1.0, 0.5)
    return SegmentsStep(
        where=fields.where,
        reads=fields.names("reads", ["probability"]),
        threshold=threshold,
        end_threshold=fields.number("end_threshold", 0.0, 1.0, max(threshold - 0.15, 0.0)),
        least=fields.number("least", 0.0, 3600.0, 0.25),
        gap=fields.number("gap", 0.0, 3600.0, 0.1),
        margin=fields.number("margin", 0.0, 60.0, 0.03),
    )
