"""Fit the vectors of a proven seed to the original, and keep what does less damage at the size."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from seed_exporter.build.streams import StreamEncoder, restored
from seed_exporter.evaluate import run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.gradients.typed import typed_model
from seed_exporter.graph.model import Graph
from seed_exporter.records import Calibrated, Planned, Proven, Work
from seed_exporter.skeletons import builder_for
from seed_exporter.stages.planning import build, model_info
from seed_exporter.stages.proving import measure_memory, prove, seal
from seed_exporter.training.prepare import is_vector
from seed_exporter.tuning import (
    BN,
    SMALL,
    Lessons,
    Tier,
    Tuning,
    as_assembled,
    batched,
    corrected,
    distilled,
    trainable,
    with_vectors,
)
from seed_runtime.backends import Array
from seed_runtime.cli import entrypoint
from seed_runtime.errors import SeedError

DAMAGE_LEAST: Final = 0.01
"""Damage below which nothing is fitted: there, less damage on the judged inputs was none on other sources.

Magika at 15x: .00099 to .00076 on files of the packages that it was fitted to, .0112 to .0116 on those of others.
"""
GAIN_LEAST: Final = 0.1
"""Share of the damage by which it has to fall: a few dozen inputs judge, and a smaller fall may be chance."""
INPUTS_LEAST: Final = 32
"""Fewest calibration inputs."""
_MEANS_SAMPLES: Final = 64
"""Most samples that means are measured on."""
_MEANS_BATCH: Final = 32
"""Samples of a batch, behind which means are moved."""
_SIZE_SLACK: Final = 1.0005
"""Share of its size that a seed may take where no size was asked for."""


def tune_vectors(proven: Proven, calibrated: Calibrated, work: Work) -> Proven:
    """Return the seed with the vectors that do the least damage on the judged inputs; its own where none do less.

    Nothing is fitted where every bit is kept, the time is up, or weights are coded against a base, which vectors that
    changed have no longer in common. Nor where the device computes with integers: what is trained here is the model of
    floats.
    """
    if work.target.lower is not None:
        return proven
    effort = calibrated.source.effort(work.options)
    modes = [mode for mode, is_wanted in ((SMALL, effort.tunes), (BN, effort.shifts)) if is_wanted]
    if not modes or not _is_worth_it(proven, calibrated, work):
        return proven
    if _has_norms(calibrated.graph):
        modes.reverse()  # without its statistics a batch norm that isn't folded is far off, and all behind it
    fitting, interruption = _Fitting(proven, calibrated, work), None
    try:
        for mode in modes:
            if _is_late(work):
                break
            fitting.attempt(mode)
    except BaseException as error:
        if not entrypoint.is_interrupt(error):
            raise
        # The seed before was whole.
        entrypoint.listen_again()
        interruption = error
    best = replace(fitting.best, built=replace(fitting.best.built, interruption=interruption))
    if not fitting.tiers:
        return best
    tuning = Tuning(tuple(fitting.tiers), proven.judgement.damage, best.judgement.damage)
    if text := tuning.text():
        work.notes.append(text)
    return replace(best, tuning=tuning)


def _is_worth_it(proven: Proven, calibrated: Calibrated, work: Work) -> bool:
    """Return whether vectors may be fitted, and could do visibly less damage."""
    built, reference, damage = proven.built, calibrated.source.reference, proven.judgement.damage
    if not work.method.tunes or work.base is not None or built.interruption is not None:
        return False
    if built.trail.expired_in_search or _is_late(work):
        return False
    if len(reference.calibration) < INPUTS_LEAST or not any(plan.adjustable for plan in built.plans.values()):
        return False
    return math.isfinite(damage) and damage >= DAMAGE_LEAST


def _is_late(work: Work) -> bool:
    return work.deadline is not None and time.monotonic() >= work.deadline


def _has_norms(graph: Graph) -> bool:
    """Return whether a graph has batch norms whose statistics the tuner can estimate."""
    return graph.trains and any(node.op_type == "BatchNormalization" for node in graph.model.graph.node)


class _Fitting:
    """The tiers of one seed.

    Attributes:
        best: the seed with what was kept so far.
        tiers: what was tried so far.
    """

    def __init__(self, proven: Proven, calibrated: Calibrated, work: Work) -> None:
        self.best, self.tiers = proven, list[Tier]()
        self._calibrated, self._work = calibrated, work
        goal = calibrated.source.goal(work.options)
        self._largest = int(_SIZE_SLACK * proven.draft.size) if goal is None else max(goal, proven.draft.size)

    def attempt(self, mode: str) -> None:
        """Fit vectors in one way, from the best so far, and keep them where they do less damage."""
        self._work.progress("tune", 0, 0)
        damage, is_kept, problem = None, False, ""
        # A full disk as well: fitting takes several times the weights' size there, and the seed before is whole.
        try:
            with self._work.timed("tune"):
                if values := self._fitted(mode):
                    graph = with_vectors(self.best.built.graph, values)
                    damage = self._damage(graph)
            # What isn't written needn't be coded.
            if damage is not None and self._is_better(damage):
                problem = self._keep(graph)
                is_kept = not problem
        except (SeedError, OSError) as error:
            problem = str(error)
        finally:
            # Or a full disk stays full, and the seed can't be written.
            shutil.rmtree(self._work.subfolder("tuned"), ignore_errors=True)
        self.tiers.append(Tier(mode, damage, is_kept, problem))

    def _fitted(self, mode: str) -> Mapping[str, Array]:
        """Return other values of vectors."""
        source, graph, plans = self._calibrated.source, self.best.built.graph, self.best.built.plans
        folder = self._work.subfolder("tuned")
        if mode == BN and not _has_norms(graph):
            vectors = frozenset(name for name, weight in graph.weights.items() if is_vector(weight))
            batches = batched(source.reference.calibration, _MEANS_SAMPLES, _MEANS_BATCH)
            original = replace(self._calibrated.graph, model=typed_model(graph))
            fitted = graph.weights  # what earlier tiers found
            return corrected(
                original, lambda weight: restored(fitted[weight.name], plans[weight.name]), vectors, batches, folder
            )
        prepared = trainable(as_assembled(graph, plans))
        lessons = Lessons(
            self._work.subfolder("original"),
            source.reference.calibration,
            source.scores,
            model_info(source, self._work.options),
        )
        progress = partial(self._work.progress, "tune")
        return distilled(prepared, mode, lessons, folder, self._work.deadline, progress)

    def _damage(self, graph: Graph) -> float:
        """Measure the damage of the model that a device makes of a graph by the plans."""
        source, folder = self._calibrated.source, self._work.subfolder("tuned")
        plans = self.best.built.plans
        write_model_files(graph, folder, lambda weight: restored(weight, plans[weight.name]))
        return source.damage(self._work.options, run.run_all(folder, source.reference.feeds))

    def _is_better(self, damage: float) -> bool:
        return damage <= (1 - GAIN_LEAST) * self.best.judgement.damage

    def _keep(self, graph: Graph) -> str:
        """Build and prove the seed of a graph with other vectors; return why it isn't kept, "" where it is."""
        built, source, work = self.best.built, self._calibrated.source, self._work
        encoder = StreamEncoder(graph, work.options.jobs)
        planned = Planned(
            graph, builder_for(graph), built.plans, built.met, encoder, built.trail, shrinkage=built.shrinkage
        )
        rebuilt = build(planned, source, work)
        assembled, judgement = prove(rebuilt, source, work)
        proven = Proven(rebuilt, seal(assembled, measure_memory(rebuilt.graph, source, work), work), judgement)
        if proven.draft.size > self._largest:
            return f"the seed would take {proven.draft.size:,} bytes, and {self._largest:,} are allowed"
        if self.best.judgement.line_kept and not judgement.line_kept:
            # Damage is one measure, and the line that a quality asks for may be of another one.
            return "the outputs would no longer keep the quality that they were searched for"
        if not self._is_better(judgement.damage):
            return "the assembled seed does no less damage"
        self.best = proven
        return ""
