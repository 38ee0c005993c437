"""`moments`: the published method, for comparison; as many components as the size allows."""

from __future__ import annotations

from collections.abc import Callable

from seed_exporter.quantize import allocate
from seed_exporter.quantize.methods.evaluator import Choice, Trial
from seed_exporter.quantize.methods.quantized import DEFAULT_RATIO


def choose(trial: Trial, alive: Callable[[], None]) -> Choice:
    goal = trial.goal or int(trial.source_bytes / DEFAULT_RATIO)
    room = max(0, goal - trial.kept_bytes())
    codings = allocate.published(trial.graph, room, allocate.VECTOR_BITS[1])
    return Choice(codings, trial.goal is None or trial.size_of(codings) <= goal)
