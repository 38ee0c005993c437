"""Search plans for a short healing to start from: on plain grids, at the size that is asked for."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from seed_exporter.build.streams import Plans, StreamEncoder
from seed_exporter.quantize.effort import DEFAULT, EFFORTS
from seed_exporter.quantize.findings import Findings
from seed_exporter.records import Loaded, Work
from seed_exporter.stages.loading import calibrate
from seed_exporter.stages.planning import plan

TIME_SHARE: Final = 0.3
"""Largest part of the time that the search takes; what it has found by then is started from."""
_INPUTS: Final = 256
"""Most inputs that statistics are measured on: training has all of them."""
_PARTS: Final = replace(EFFORTS[DEFAULT], trellis=False, input_steps=False)
"""What a search does for plans that can be trained: columns have no steps, and no integer depends on others."""


def starting_plans(loaded: Loaded, goal: int, front_bytes: int, work: Work) -> Plans:
    """Search as an export without training does; return plans of all weights of the prepared graph.

    Args:
        loaded: the model.
        goal: most bytes of the seed.
        front_bytes: size of the sections that are added later [B].
        work: what all stages share.
    """
    deadline = work.deadline
    if deadline is not None:
        now = time.monotonic()
        deadline = now + TIME_SHARE * (deadline - now)
    reference = loaded.source.reference
    few = replace(reference, calibration=reference.calibration[:_INPUTS])
    searched = replace(
        work, options=replace(work.options, parts=_PARTS), deadline=deadline, findings=Findings(), notes=[]
    )
    calibrated = calibrate(replace(loaded, source=replace(loaded.source, reference=few)), searched)
    encoder = StreamEncoder(calibrated.graph, work.options.jobs)
    planned = plan(calibrated, goal, front_bytes, encoder, searched)
    if planned.interruption is not None:
        raise planned.interruption
    return planned.plans
