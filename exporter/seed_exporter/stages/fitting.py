"""Plan, build and prove a seed until it keeps its goal and uses what the goal allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from seed_exporter.build.streams import Plans, StreamEncoder
from seed_exporter.records import Built, Calibrated, Proven, Work
from seed_exporter.stages import front_size
from seed_exporter.stages.planning import build, plan
from seed_exporter.stages.proving import measure_memory, prove, seal
from seed_exporter.stages.targeting import added_bytes
from seed_runtime.cli import entrypoint

_BUILDS_MAX: Final = 4
"""Most times that a seed is built for one goal: once, unless the sizes were estimated wrongly."""
_FRONT_SLACK: Final = 16
"""Bytes by which the golden sample and the signature may grow when a seed is built once more [B]."""
_USED_LEAST: Final = 0.99
"""Share of the goal that a seed must use, or finer steps are tried."""
_USED_LEAST_LATE: Final = 0.95
"""The same of what isn't made again for so little: trained plans, and those of a search whose time is up, as later ones
would be neither trained nor on a trellis, which is worth 4 % of the bytes."""


def build_and_prove(calibrated: Calibrated, work: Work) -> Proven:
    """Build the seed, assemble it as a device does, compare its outputs, measure its memory, sign it.

    Room is kept for the sections that are added at the end. Where they took another size, so that the seed misses the
    goal or leaves more of it unused than it may, it is built once more.
    """
    source, goal = calibrated.source, calibrated.source.goal(work.options)
    reserved = front_size.front_bytes(source, work)
    built = plan_and_build(calibrated, reserved, work)
    assembled, judgement = prove(built, source, work)
    memory = measure_memory(built.graph, source, work)
    proven = Proven(built, seal(assembled, memory, work), judgement)
    needed = proven.front_bytes + _FRONT_SLACK
    if goal is None or built.interruption is not None or _fits(proven.draft.size, goal, built):
        return proven
    if proven.draft.size <= goal and (needed >= reserved or not _can_grow(built)):
        return proven
    try:
        again = plan_and_build(calibrated, needed, work)
        assembled, judgement = prove(again, source, work)
    except BaseException as error:
        if not entrypoint.is_interrupt(error):
            raise
        entrypoint.listen_again()
        return replace(proven, built=replace(built, interruption=error))
    finished = Proven(again, seal(assembled, memory, work), judgement)
    best = max((proven, finished), key=lambda one: _rank(one.draft.size, goal))
    return replace(best, built=replace(best.built, interruption=again.interruption))


def plan_and_build(calibrated: Calibrated, front_bytes: int, work: Work) -> Built:
    """Plan all weights for the size that was asked for, and build the seed: once, if its size was estimated rightly.

    A seed that exceeds its goal, or leaves more of it unused than it may, is planned again for a goal moved by as much.

    Args:
        calibrated: the model.
        front_bytes: room for the sections that are added later [B].
        work: what all stages share.
    """
    goal = wanted = calibrated.source.goal(work.options)
    encoder = StreamEncoder(calibrated.graph, work.options.jobs)
    planned_front = front_bytes + added_bytes(calibrated.graph, work)
    best: Built | None = None
    before: Plans | None = None
    for _ in range(_BUILDS_MAX):
        try:
            planned = plan(calibrated, wanted, planned_front, encoder, work)
        except BaseException as error:
            if best is None or not entrypoint.is_interrupt(error):
                raise
            # The round before was whole.
            entrypoint.listen_again()
            return replace(best, interruption=error)
        if best is not None and planned.plans == before:
            break
        before = planned.plans
        built = build(planned, calibrated.source, work)
        if goal is None or wanted is None or built.interruption is not None:
            return built
        size = built.draft.size + front_bytes
        if best is None or _rank(size, goal) > _rank(best.draft.size + front_bytes, goal):
            best = built
        if _fits(size, goal, built) or (not _can_grow(built) if size <= goal else not planned.met):
            break
        wanted += int(goal * (1 + _USED_LEAST) / 2) - size
        if wanted < front_bytes:
            break
    assert best is not None
    return best


def _can_grow(built: Built) -> bool:
    """Return whether other plans could make the seed larger, and its error smaller."""
    return any(plan.adjustable for plan in built.plans.values())


def _fits(size: int, goal: int, built: Built) -> bool:
    """Return whether a seed keeps its goal and leaves no more of it unused than it may."""
    if not _USED_LEAST_LATE * goal <= size <= goal:
        return False
    return size >= _USED_LEAST * goal or built.trail.expired or built.trail.trained


def _rank(size: int, goal: int) -> tuple[bool, int]:
    """Order sizes from worst to best: those that keep the goal are better, and of these the largest, else the least."""
    return (True, size) if size <= goal else (False, -size)
