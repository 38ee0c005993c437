"""What a training was seen to reach on its way, for progress and reports; without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """One look at a training.

    Attributes:
        share: part of the run that was done.
        size: of the whole seed [B].
        damage: by the metric `auto`, on inputs that aren't trained on.
    """

    share: float
    size: int
    damage: float
