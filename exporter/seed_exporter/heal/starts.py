"""Starts of short healings: plans that a search found, from which training goes on.

A size that falls to its goal needs some thousands of steps on the way. On a CPU that is hours, while a search for the
goal takes minutes and leaves all steps to win back what rounding lost.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from seed_exporter.build.streams import restored
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.heal.batches import grouped, joined
from seed_exporter.heal.checkpoint import is_started
from seed_exporter.heal.graphs import device_of, takes_batches
from seed_exporter.heal.interpreter import Interpreter, unpacked
from seed_exporter.heal.pace import BATCH_LEAST
from seed_runtime.backends import Feeds
from seed_runtime.codecs.encode.grid import QuantizedMatrix

STEPS_FEW: Final = 10_000
"""Steps of 8 inputs below which a run starts from the plans of a search."""
_OF_FORWARD: Final = 5.0
"""Time of a step, as a multiple of what the original takes to answer: its answers, the student's, their gradients and
the rate."""


def is_short(graph: Graph, feeds: Sequence[Feeds], seconds: float | None, checkpoints: Path | None = None) -> bool:
    """Return whether few steps fit into a time; on a GPU, and where there is no limit, there are always many.

    Args:
        graph: the model.
        feeds: inputs of single calls.
        seconds: the time; None without a limit.
        checkpoints: folder of a training that is continued as it was started, if it has a checkpoint.

    Raises:
        UnsupportedError: the graph has an operator that torch can't compute here.
        InputError: the checkpoint is damaged.
    """
    if checkpoints is not None and (started := is_started(checkpoints)) is not None:
        return started
    if seconds is None or device_of() != "cpu" or not feeds:
        return False
    size = BATCH_LEAST if takes_batches(graph) else 1
    batch, model = joined(grouped(feeds[:size])[0]), Interpreter(graph)
    weights, took = model.weights(), 0.0
    for _ in range(2):  # the first one allocates
        began = time.monotonic()
        with torch.no_grad():
            model.run(batch, weights)
        took = time.monotonic() - began
    return seconds < STEPS_FEW * _OF_FORWARD * took


def stays(weight: Weight) -> bool:
    """Return whether a short run leaves a weight as a search planned it: a table, most of whose rows it never reads.

    Rows without a gradient of the loss have that of the rate alone, which Adam makes as large as any other.
    """
    return bool(weight.uses) and all((use.op, use.index) == ("Gather", 0) for use in weight.uses)


def decoded(graph: Graph, plans: Mapping[str, Plan], names: Collection[str]) -> dict[str, np.ndarray]:
    """Return weights as a decoder makes them."""
    weights = {name: graph.weights[name] for name in names}
    return {name: unpacked(replace(each, data=restored(each, plans[name]))) for name, each in weights.items()}


def grids_of(graph: Graph, plans: Mapping[str, Plan]) -> dict[str, QuantizedMatrix]:
    """Return the integers of plans that training can go on from: those on no trellis."""
    found = {
        name: plan.quantize(graph.weights[name])
        for name, plan in plans.items()
        if isinstance(plan, GridPlan) and name in graph.weights
    }
    return {name: matrix for name, matrix in found.items() if matrix.delay is None}
