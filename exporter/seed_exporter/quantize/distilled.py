"""Highest effort: plans that a search found are trained on the calibration inputs, and kept where that helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from seed_exporter import heal
from seed_exporter.calibrate import excite
from seed_exporter.codecs.base import Plan
from seed_exporter.evaluate.inputs import find_recipes
from seed_exporter.evaluate.model_files import backend_of, write_model_files
from seed_exporter.evaluate.run import are_finite
from seed_exporter.quantize.evaluator import Evaluator
from seed_runtime.backends import Feeds
from seed_runtime.errors import SeedError
from seed_runtime.system.scratch import scratch_folder

INPUTS_LEAST: Final = 8
"""Fewest calibration inputs that are trained on: fewer are known by heart at once."""
INPUTS_MAX: Final = 2048
"""Most calibration inputs that are trained on: they are held at once."""
UNITS: Final = 100
"""Units of work that training counts as in the progress."""
PARTS: Final = (0.75, 0.87)
"""Sizes that are tried under a line, as parts of the size that the search found."""


def check(evaluator: Evaluator) -> None:
    """Raise the error that training would end in, before the search begins; where there are inputs to train on."""
    if evaluator.effort.distills and len(evaluator.calibration) >= INPUTS_LEAST:
        heal.check(evaluator.graph)


def distilled(
    evaluator: Evaluator,
    start: Mapping[str, Plan],
    best: dict[str, Plan],
    keeps: Callable[[dict[str, Plan]], bool],
) -> dict[str, Plan]:
    """Return trained plans, or the best without training where those aren't better.

    Better is less damage at the size asked for, and a smaller size under a line.

    Args:
        evaluator: has the goal, the inputs and the effort.
        start: plans that training starts from, on plain grids.
        best: the best plans without training.
        keeps: tells whether plans keep the line.
    """
    if not evaluator.effort.distills or not evaluator.measures_errors:
        return best
    before = dict(start)
    feeds = [] if evaluator.trail.expired else list(islice(evaluator.calibration, INPUTS_MAX))
    if len(feeds) < INPUTS_LEAST:
        return best
    out_of_domain = _out_of_domain(evaluator)
    if evaluator.goal is not None:
        trained = _trained(evaluator, before, feeds, out_of_domain, evaluator.goal, evaluator.trail.clock())
        evaluator.trail.trained = _damage(evaluator, trained) < _damage(evaluator, best)
        return trained if evaluator.trail.trained else best
    size = evaluator.size_of(best)
    for number, part in enumerate(PARTS):
        if evaluator.trail.expired:
            break
        clock = evaluator.trail.clock(len(PARTS) - number)
        trained = _trained(evaluator, before, feeds, out_of_domain, int(part * size), clock)
        if trained != before and keeps(trained):
            return trained
    return best


def _out_of_domain(evaluator: Evaluator) -> list[Feeds]:
    """Make inputs that have nothing of the source of the calibration inputs; none where the model takes none.

    EfficientNet-lite0's damage on wallpapers fell from .16 to .024 while that on stamps rose from .064 to .43.
    """
    with scratch_folder(evaluator.folder) as folder:
        write_model_files(evaluator.graph, folder, builder=evaluator.skeletons)
        runner = backend_of(folder).open(folder, "fast")
        try:
            recipes = find_recipes(evaluator.graph, runner.inputs, runner.run)
            made = excite(evaluator.graph, folder, evaluator.encoder.jobs, runner.inputs, recipes, runner.run)
            # What a model makes NaN of, such as the root of a negative number, says nothing of its weights.
            return [feed for feed in (*made.judged, *made.calibration) if are_finite(runner.run(feed), evaluator.noisy)]
        except SeedError:
            return []
        finally:
            runner.close()


def _trained(
    evaluator: Evaluator,
    plans: dict[str, Plan],
    feeds: list[Feeds],
    out_of_domain: list[Feeds],
    goal: int,
    clock: Callable[[], float] | None,
) -> dict[str, Plan]:
    trail, done = evaluator.trail, 0
    trail.plan_work(UNITS)

    def progress(share: float, _damage: float) -> None:
        nonlocal done
        trail.advance(round(share * UNITS) - done)
        done = round(share * UNITS)

    return heal.distill(
        evaluator.graph, plans, feeds, evaluator.size_of, goal,
        noisy=tuple(evaluator.noisy), out_of_domain=out_of_domain, spent=clock,
        stop=lambda: trail.expired, progress=progress,
    )  # fmt: skip


def _damage(evaluator: Evaluator, plans: Mapping[str, Plan]) -> float:
    return evaluator.metric.damage(evaluator.expected, evaluator.outputs_with(plans), evaluator.feeds)
