"""Distil a model into its own vectors: the runtime's tuner learns the original's answers as soft labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import seed_runtime
from seed_exporter.build import draft
from seed_exporter.build.streams import encode
from seed_exporter.evaluate import run
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import lossless
from seed_exporter.training.roles import Roles, find_roles
from seed_exporter.tuning.samples import BYTES_MAX, stacked
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.backends import Array, Feeds
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError
from seed_runtime.format.header import ModelInfo
from seed_runtime.tune import Settings, tune
from seed_runtime.tune.last_layer import softmax

STEPS: Final = 60
"""Most steps of gradients."""
BATCH: Final = 16
"""Samples of a step."""
SAMPLES_MAX: Final = 256
"""Most samples that are learned from."""
_CACHE_MAX: Final = 1 << 44
"""Size of the cache in the export's own folder [B]."""
_DELTA_MAX: Final = 1 << 40
"""Size of a delta that is never made [B]."""


@dataclass(frozen=True)
class Lessons:
    """What is learned from.

    Attributes:
        original: folder with the original model.
        feeds: inputs of calls.
        scores: outputs that are scores of classes before a softmax.
        info: section MODEL of a seed of the model.
    """

    original: Path
    feeds: Sequence[Feeds]
    scores: Collection[str]
    info: ModelInfo


def distilled(
    graph: Graph,
    mode: str,
    lessons: Lessons,
    folder: Path,
    deadline: float | None,
    progress: Callable[[int, int], None],
) -> dict[str, Array]:
    """Return new values of vectors by name, with which the model is nearer to the original on samples held out.

    None where none was found, or the time was up. Without a deadline, the same on the same machine.

    Args:
        graph: a trainable one, with the weights that a device has.
        mode: BN or SMALL.
        lessons: what is learned from.
        folder: for the seed and its assembled model.
        deadline: when the training takes its best so far, on `time.monotonic`'s clock; None without.
        progress: called with the steps that are done, and all of them.

    Raises:
        SeedError: the model or its inputs are such that nothing can be trained.
    """
    samples = _samples(find_roles(graph), lessons)
    made = draft.build(graph, encode(graph, lossless(graph)), lessons.info)
    (assembled := folder / "assembled").mkdir(exist_ok=True)
    path = folder / "tuned.seed"
    made.assemble(assembled).write(path)
    settings = Settings(
        mode=mode,
        steps=STEPS,
        batch=BATCH,
        delta_size=_DELTA_MAX,
        time_limit=None if deadline is None else max(0.0, deadline - time.monotonic()),
        progress=lambda at: progress(at.step, at.steps),
    )
    result = tune(
        seed_runtime.open(path, enforce=False), samples, settings, cache=ModelCache(folder / "cache", _CACHE_MAX)
    )
    if result.interruption is not None:
        raise result.interruption
    names = [hole.name for hole in made.skeleton.holes]
    return {names[number]: value for number, value in result.tensors.items()}


def _samples(roles: Roles, lessons: Lessons) -> Mapping[str, Array]:
    """Return inputs, and as labels what the original makes of them: shares of classes, or values."""
    name = roles.output.name
    is_scores = roles.scores == name and name in lessons.scores and roles.axis is not None
    calls, size = list[Feeds](), 0
    for feed, outputs in zip(lessons.feeds, run.iterate_outputs(lessons.original, lessons.feeds), strict=True):
        answer = outputs[name]
        if is_scores:
            assert roles.axis is not None
            answer = _softmax(answer, roles.axis)
        calls.append({**feed, LABELS: answer})
        # Scores of a vocabulary take far more than the inputs.
        if (size := size + answer.nbytes) > BYTES_MAX:
            break
    samples = stacked(calls, SAMPLES_MAX)
    if not samples:
        raise InputError("no calls of one shape have samples along the first axis of all inputs and of the output")
    return samples


def _softmax(scores: Array, axis: int) -> Array:
    return np.moveaxis(softmax(np.moveaxis(scores, axis, -1)), -1, axis)
