"""Heal a model to the size that was asked for: its plans are trained, not searched for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import numpy as np
import onnx

from seed_exporter import heal, loaders
from seed_exporter.build import draft
from seed_exporter.build.streams import StreamEncoder
from seed_exporter.codecs.base import Plan
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import lossless
from seed_exporter.quantize.cut_plans import cut_dead
from seed_exporter.quantize.trail import Trail
from seed_exporter.records import Loaded, Planned, Proven, Work
from seed_exporter.results import Options, Source
from seed_exporter.skeletons import builder_for
from seed_exporter.stages import front_size
from seed_exporter.stages.course import Course
from seed_exporter.stages.cutting import cut_healed
from seed_exporter.stages.planning import build, model_info
from seed_exporter.stages.proving import measure_memory, prove, seal
from seed_exporter.stages.starting import starting_plans
from seed_runtime.backends import Feeds
from seed_runtime.cli import entrypoint
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError


def check_installed() -> None:
    """Raise the error of a missing package before anything is read."""
    _ = heal.Healing


def heal_and_prove(loaded: Loaded, original: Graph, work: Work) -> Proven:
    """Train the weights, cut what died, build the seed and prove it.

    Args:
        loaded: the model.
        original: what was loaded, before `--shrink`.
        work: what all stages share.

    Raises:
        UnsupportedError: the graph has an operator that torch can't compute here.
        InputError: there is too little data, or the original answers with NaN.
    """
    source, options = loaded.source, work.options
    goal = source.goal(options)
    assert goal is not None  # option_checks
    with work.timed("heal"):
        work.progress("heal", 0, 0)
        folded = work.method.prepare(loaded.graph)
        info = model_info(source, options)
        trail = Trail(deadline=work.deadline)
        # A bound: proving the start would say it to some tens of bytes, and takes as long as a seed does.
        front = front_size.front_bytes(source, work)

        def size_of(graph: Graph, plans: Mapping[str, Plan]) -> int:
            # The size that steers training is the seed's: without what is dead (0.7 s for ResNet-50).
            cut, left = cut_dead(graph, plans)
            encoder = StreamEncoder(cut, options.jobs, trained=True)
            return draft.estimate_size(cut, encoder.estimate(left), info) + front

        course = Course(source.model_id, goal, trail, work)
        start, left = None, None if work.deadline is None else work.deadline - time.monotonic()
        if heal.is_short(loaded.graph, source.reference.training, left, options.resume):
            start = starting_plans(loaded, goal, front, work)
            if start is None and options.resume is not None and heal.is_started(options.resume):
                raise InputError(
                    "the training of --resume started from a search, which didn't end in half of the time now; give it "
                    "more time, or leave out --time-limit"
                )
            if start is None:
                work.notes.append(
                    "the search to start from found nothing in half of the time: training began from rounding, which "
                    "takes thousands of steps; give it more time, or export without --heal"
                )
        run = heal.Healing(
            loaded.graph, folded, _feeds(source), lossless(folded), size_of, goal, start=start,
            scores=source.scores, noisy=tuple(source.reference.noisy), settings=options.heal_settings, tell=course.look,
            draw=options.draw, teacher=_teacher(loaded.graph, options), checkpoints=options.resume,
            checkpoint_key=options.resume_key, cut_dead=cut_dead,
            pace=lambda seconds: course.start(
                seconds, run.settings.steps, run.device.type == "cuda", run.first_share
            ),
            say=work.say,
        )  # fmt: skip
        interruption: BaseException | None = None
        try:
            left = None if work.deadline is None else work.deadline - time.monotonic()
            run.run(lambda: False, trail.clock(), left)
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # a GPU that failed gives nothing back
                run.save()
            if not entrypoint.is_interrupt(error):
                raise
            # The best so far is finished; the next Ctrl-C ends that as well.
            entrypoint.listen_again()
            interruption = error
        if lost := run.lost_batches:
            work.notes.append(lost)
    planned = cut_healed(_planned(run, goal, trail, work, interruption), original, folded, source, work)
    built = build(planned, source, work)
    assembled, judgement = prove(built, source, work)
    return Proven(built, seal(assembled, measure_memory(built.graph, source, work), work), judgement)


def _planned(run: heal.Healing, goal: int, trail: Trail, work: Work, interruption: BaseException | None) -> Planned:
    best = run.best
    encoder = StreamEncoder(best.graph, work.options.jobs, trained=True)
    met = best.look.size <= goal
    return Planned(best.graph, builder_for(best.graph), best.plans, met, encoder, trail, interruption)


def _feeds(source: Source) -> list[Feeds]:
    """Return the inputs to train on, each with its labels where there are some."""
    reference = source.reference
    feeds, labels = list(reference.training), reference.training_labels
    if labels is None or labels.dtype.kind not in "iu" or len(labels) != len(feeds):
        return feeds
    return [{**feed, LABELS: row[None].astype(np.int64)} for feed, row in zip(feeds, labels, strict=True)]


def _teacher(graph: Graph, options: Options) -> Graph | None:
    """Load the model whose answers are learned; None where it is the model itself."""
    if options.teacher is None:
        return None
    teacher = loaders.load(options.teacher)
    for ends in ("input", "output"):
        own, other = (
            {value.name: _type_of(value) for value in getattr(each.model.graph, ends) if value.name not in each.weights}
            for each in (graph, teacher)
        )
        if own != other:
            raise InputError(
                f"{options.teacher} has other {ends}s ({_listed(other)}) than the model ({_listed(own)}); export both "
                f"with the same names and sizes"
            )
    return teacher


def _type_of(value: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...]]:
    """Return the element type of an input or output, and its sizes; 0 where one is free."""
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim)


def _listed(types: Mapping[str, tuple[int, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} [{', '.join(str(size or 'any') for size in sizes)}]" for name, (_, sizes) in sorted(types.items())
    )
