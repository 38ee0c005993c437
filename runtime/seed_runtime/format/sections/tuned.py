"""Section TUNED: how the weights were trained on a device, and what that was worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import FormatError
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import OPTIONAL, Parsed, Section


@dataclass(frozen=True)
class Tuned:
    """Record of a fine-tune.

    Raises:
        ValueError: there is no metric and a score isn't 0, or a score is not a number.
    """

    mode: str
    """What was trained, such as "small"."""
    metric: str = ""
    """Name of the score; empty where nothing was measured, and the scores are 0 then."""
    before: float = 0.0
    """Score of the base, on data that was held out."""
    after: float = 0.0
    """Score of this seed on the same data."""

    def __post_init__(self) -> None:
        scores = self.before, self.after
        if not all(map(math.isfinite, scores)) or (not self.metric and any(scores)):
            raise ValueError(f"a record of a fine-tune can't hold the scores {scores} of {self.metric!r}")


def _parse(cursor: Cursor, _: Parsed) -> Tuned:
    mode, metric = cursor.string("mode"), cursor.string("metric")
    scores = (cursor.f32("score before"), cursor.f32("score after")) if metric else (0.0, 0.0)
    if not all(map(math.isfinite, scores)):
        raise FormatError(cursor.where, f"scores of {scores[0]} and {scores[1]} are not valid")
    return Tuned(mode, metric, *scores)


def _serialize(tuned: Tuned) -> bytes:
    scores = primitives.f32(tuned.before) + primitives.f32(tuned.after) if tuned.metric else b""
    return primitives.string(tuned.mode) + primitives.string(tuned.metric) + scores


TUNED: Final = Section(OPTIONAL | 0x0009, "TUNED", _parse, _serialize)
