"""Plan how each weight is coded, and build the seed of the plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seed_exporter.build import draft
from seed_exporter.build.streams import StreamEncoder
from seed_exporter.quantize.against_base import against_base, count_modes
from seed_exporter.quantize.methods import Choice, Evaluator
from seed_exporter.quantize.trail import Trail
from seed_exporter.records import Built, Calibrated, Planned, Work
from seed_exporter.results import Options, Source
from seed_exporter.skeletons import builder_for
from seed_runtime.cli import entrypoint
from seed_runtime.format.header import ModelInfo
from seed_runtime.format.sections.model import FEATURE_LEVEL


def plan(calibrated: Calibrated, goal: int | None, front_bytes: int, encoder: StreamEncoder, work: Work) -> Planned:
    """Choose a plan for each weight by the method that was asked for.

    Args:
        calibrated: the model.
        goal: most bytes of the seed; None where no size was asked for.
        front_bytes: size of the sections that are added later [B].
        encoder: of the model's graph.
        work: what all stages share.
    """
    reference = calibrated.source.reference
    with work.timed("search"):
        evaluator = Evaluator(
            encoder=encoder,
            skeletons=calibrated.skeletons,
            model=model_info(calibrated.source, work.options),
            statistics=calibrated.statistics,
            front_bytes=front_bytes,
            goal=goal,
            feeds=reference.feeds,
            expected=reference.outputs,
            folder=work.subfolder("trial"),
            noisy=reference.noisy,
            calibration=reference.calibration,
            line=calibrated.source.line(work.options) if work.method.has_quality else None,
            metric=calibrated.source.metric(work.options),
            effort=calibrated.source.effort(work.options),
            trail=Trail(lambda done, total: work.progress("search", done, total), work.deadline),
            findings=work.findings,
            target=work.target,
        )
        interruption: BaseException | None = None
        try:
            choice = work.method.choose(evaluator, lambda: work.progress("search", 0, 0))
        except BaseException as error:
            if not entrypoint.is_interrupt(error) or evaluator.trail.best is None:
                raise
            # The best so far is finished; the next Ctrl-C ends that as well.
            entrypoint.listen_again()
            interruption, choice = error, Choice(*evaluator.trail.best)
        plans = choice.plans
        if work.base is not None and any(count_modes(differing := against_base(evaluator, plans, work.base))):
            plans = differing
    return Planned(calibrated.graph, calibrated.skeletons, plans, choice.met, encoder, evaluator.trail, interruption)


def build(planned: Planned, source: Source, work: Work) -> Built:
    """Code all weights and put them together with the skeleton."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        work.progress("encode", done, planned.graph.parameters)

    with work.timed("encode"):
        planned = _lowered(planned, work)
        made = _draft(planned, source, work, advance)
        sizes = planned.encoder.estimate_bytes(planned.plans)
    return Built(
        planned.graph, planned.plans, made, planned.met, planned.trail, planned.interruption, planned.shrinkage, sizes
    )


def _lowered(planned: Planned, work: Work) -> Planned:
    """Return what the device holds of a planned model."""
    if work.target.lower is None:
        return planned
    lowered = work.target.lowered(planned.graph, planned.plans)
    encoder = StreamEncoder(lowered.graph, work.options.jobs)
    return replace(
        planned, graph=lowered.graph, plans=lowered.plans, skeletons=builder_for(lowered.graph), encoder=encoder
    )


def _draft(planned: Planned, source: Source, work: Work, advance: Callable[[int], None]) -> draft.SeedDraft:
    """Code all weights; in the order of the base's, where that makes both graphs the same one."""
    model = model_info(source, work.options)
    base = work.base if any(count_modes(planned.plans)) else None
    return draft.build_in_order(planned.encoder, planned.plans, model, planned.skeletons, base, advance)


def model_info(source: Source, options: Options) -> ModelInfo:
    """Make section MODEL of the seed's header."""
    return ModelInfo(
        model_id=source.model_id,
        version=options.model_version,
        feature_level=FEATURE_LEVEL,
        parameters=source.parameters,
        source_bytes=source.weight_bytes,
    )
