"""Search plans for a short healing to start from: on plain grids, at the size that is asked for."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import numpy as np

from seed_exporter.build.streams import Plans, StreamEncoder
from seed_exporter.calibrate import ROW_COUNTS, collect
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.graph.linear import table_axis_is_first
from seed_exporter.graph.model import Graph
from seed_exporter.heal.checkpoint import START, Checkpoints, key_of
from seed_exporter.heal.saved_plans import packed, unpacked
from seed_exporter.quantize.effort import DEFAULT, EFFORTS
from seed_exporter.quantize.findings import Findings
from seed_exporter.records import Calibrated, Loaded, Work
from seed_exporter.stages.loading import calibrate
from seed_exporter.stages.planning import plan

TIME_SHARE: Final = 0.5
"""Largest part of the time that the search takes. What it has by then isn't calibrated: steps by weight scales."""
_LIVING_LEAST: Final = 0.5
"""Share of matrices' rows that must hold an integer that isn't 0. A text-direction classifier at 20x has .88, and .9
with a trellis; rounded to nearest, with few rows left, it answered the same to all for 60 of 100 steps."""
_INPUTS: Final = 512
"""Most inputs that statistics are measured on, but for how often rows are read: training has all of them."""
_PARTS: Final = replace(EFFORTS[DEFAULT], trellis=False)
"""What a search does for plans that can be trained: no integer depends on others."""


def starting_plans(loaded: Loaded, goal: int, front_bytes: int, work: Work) -> Plans | None:
    """Search as an export without training does; return plans of all weights of the prepared graph.

    With a folder to continue from they are kept there, and a training that is continued doesn't search again.
    None where the search isn't done in its time, keeps no such size, or leaves most dead: nothing could be learned
    from there.

    Args:
        loaded: the model.
        goal: most bytes of the seed.
        front_bytes: size of the sections that are added later [B].
        work: what all stages share.
    """
    kept: Checkpoints | None = None
    if work.options.resume is not None:
        key = key_of(loaded.graph, loaded.source.reference.training, goal, _PARTS)
        kept = Checkpoints(work.options.resume, key, work.say, START)
        if (found := kept.read()) is not None:
            return unpacked(found[0], found[1]["plans"])
    work.say("few steps fit into the time: a search for this size comes first, and is trained on")
    plans = _searched(loaded, goal, front_bytes, work)
    if kept is not None and plans is not None:
        arrays, facts = packed(plans)
        kept.write(arrays, {"plans": facts})
    return plans


def _searched(loaded: Loaded, goal: int, front_bytes: int, work: Work) -> Plans | None:
    deadline = work.deadline
    if deadline is not None:
        now = time.monotonic()
        deadline = now + TIME_SHARE * (deadline - now)
    searched = replace(
        work, options=replace(work.options, parts=_PARTS), deadline=deadline, findings=Findings(), notes=[]
    )
    calibrated = _calibrated(loaded, searched)
    encoder = StreamEncoder(calibrated.graph, work.options.jobs)
    planned = plan(calibrated, goal, front_bytes, encoder, searched)
    if planned.interruption is not None:
        raise planned.interruption
    done = planned.met and not planned.trail.expired_in_search
    return planned.plans if done and _is_alive(planned.graph, planned.plans) else None


def _calibrated(loaded: Loaded, work: Work) -> Calibrated:
    reference = loaded.source.reference
    few = replace(reference, calibration=reference.calibration[:_INPUTS])
    found = calibrate(replace(loaded, source=replace(loaded.source, reference=few)), work)
    if not any(map(table_axis_is_first, found.graph.weights.values())):
        return found
    # Rows of words that only other inputs have would be coded as nothing.
    folder = work.subfolder("calibration")
    counts = collect(found.graph, {ROW_COUNTS}, reference.calibration, folder, work.options.jobs)
    return replace(found, statistics=found.statistics.replaced(counts))


def _is_alive(graph: Graph, plans: Plans) -> bool:
    rows = [
        plan.quantize(weight).integers.any(axis=1)
        for name, weight in graph.weights.items()
        if isinstance(plan := plans[name], GridPlan)
        and kind_of(weight) is Kind.MATRIX
        and not table_axis_is_first(weight)  # most rows may be those of words that no input has
    ]
    return bool(rows) and float(np.concatenate(rows).mean()) >= _LIVING_LEAST
