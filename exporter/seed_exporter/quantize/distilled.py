"""Highest effort: plans that a search found are trained on the calibration inputs, and kept where that helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from seed_exporter import heal
from seed_exporter.codecs.base import Plan
from seed_exporter.quantize.evaluator import Evaluator

INPUTS_LEAST: Final = 8
"""Fewest calibration inputs that are trained on: fewer are known by heart at once."""
INPUTS_MAX: Final = 2048
"""Most calibration inputs that are trained on: they are held at once."""
PARTS: Final = (0.75, 0.87)
"""Sizes that are tried under a line, as parts of the size that the search found."""


def check(evaluator: Evaluator) -> None:
    """Raise the error that training would end in, before the search begins; where there are inputs to train on."""
    if evaluator.effort.distills and len(evaluator.calibration) >= INPUTS_LEAST:
        heal.check(evaluator.graph)


def distilled(
    evaluator: Evaluator, plans: Mapping[str, Plan], keeps: Callable[[dict[str, Plan]], bool]
) -> dict[str, Plan]:
    """Return plans trained from these: of less damage at the size asked for, smaller ones under a line.

    Args:
        evaluator: has the goal, the inputs and the effort.
        plans: plans that the search found.
        keeps: tells whether plans keep the line.
    """
    before = dict(plans)
    feeds = list(islice(evaluator.calibration, INPUTS_MAX))
    if not evaluator.effort.distills or not evaluator.measures_errors or len(feeds) < INPUTS_LEAST:
        return before
    if evaluator.goal is not None:
        trained = _trained(evaluator, before, feeds, evaluator.goal)
        return trained if _damage(evaluator, trained) < _damage(evaluator, before) else before
    size = evaluator.size_of(before)
    for part in PARTS:
        if evaluator.trail.expired:
            break
        trained = _trained(evaluator, before, feeds, int(part * size))
        if trained != before and keeps(trained):
            return trained
    return before


def _trained(evaluator: Evaluator, plans: dict[str, Plan], feeds: list, goal: int) -> dict[str, Plan]:
    done = 0

    def progress(steps: int, total: int, _damage: float) -> None:
        nonlocal done
        if not done:
            evaluator.trail.plan_work(total)
        evaluator.trail.advance(steps - done)
        done = steps

    trail = evaluator.trail
    return heal.distill(
        evaluator.graph, plans, feeds, evaluator.size_of, goal,
        noisy=tuple(evaluator.noisy), stop=lambda: trail.expired, progress=progress,
    )  # fmt: skip


def _damage(evaluator: Evaluator, plans: Mapping[str, Plan]) -> float:
    return evaluator.metric.damage(evaluator.expected, evaluator.outputs_with(plans), evaluator.feeds)
