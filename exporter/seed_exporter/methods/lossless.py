"""`lossless`: every bit of every weight."""

from __future__ import annotations

from collections.abc import Callable

from seed_exporter import allocate
from seed_exporter.methods.trial import Choice, Trial


def choose(trial: Trial, alive: Callable[[], None]) -> Choice:
    return Choice(allocate.lossless(trial.graph))
