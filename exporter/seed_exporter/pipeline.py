"""Make a seed of a model: load, calibrate, plan, build, prove, write.

Each stage is a function from the record of the one before to a record of its own. Facts of the original are frozen in
`Source` when it is loaded; stages work on the graph that their record holds, and one that edits it hands on another.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from threadpoolctl import threadpool_limits

import seed_runtime
from seed_exporter import calibrate as statistics
from seed_exporter import front_size, loaders, sign
from seed_exporter.build import draft
from seed_exporter.build.draft import SeedDraft
from seed_exporter.build.streams import Plans, StreamEncoder
from seed_exporter.evaluate import compare, footprint, run, thinning
from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate.line import score_outputs
from seed_exporter.evaluate.reference import GOLDEN_RNG_SEED, make_reference
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.source_size import source_size
from seed_exporter.option_checks import check_options
from seed_exporter.output_files import check_output
from seed_exporter.quantize.methods import Choice, Evaluator
from seed_exporter.quantize.trail import Trail
from seed_exporter.records import Built, Calibrated, Judgement, Loaded, Planned, Progress, Proven, Work
from seed_exporter.results import InterruptedExport, Options, Result, Source
from seed_exporter.skeletons import builder_for
from seed_runtime import backends
from seed_runtime.cli import entrypoint
from seed_runtime.errors import UsageError
from seed_runtime.format import primitives
from seed_runtime.format.header import ModelInfo
from seed_runtime.format.sections.model import FEATURE_LEVEL
from seed_runtime.format.writer import to_sign
from seed_runtime.limits import STRING_MAX
from seed_runtime.system.files import atomic_write
from seed_runtime.system.scratch import scratch_folder
from seed_runtime.trust.sshsig import describe_key

_BUILDS_MAX: Final = 4
"""Most times that a seed is built for one goal: once, unless the sizes were estimated wrongly."""
_FRONT_SLACK: Final = 16
"""Bytes by which the golden sample and the signature may grow when a seed is built once more [B]."""
_USED_LEAST: Final = 0.99
"""Share of the goal that a seed must use, or finer steps are tried."""


def export(
    source: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    output: str | os.PathLike[str],
    options: Options | None = None,
    progress: Progress | None = None,
    **loader_options: Any,
) -> Result:
    """Make a seed of a model: a path (`.onnx`, `.pt2`), an ONNX model, an exported program, or a torch module.

    Args:
        source: the model.
        example_inputs: the positional arguments of a torch module, with which it is traced.
        output: path of the seed; an older seed there is replaced once the new one is whole.
        options: what the command line can say.
        progress: called while work goes on.
        loader_options: passed to the format's loader, such as `dynamic_shapes` and `input_names` of a module.

    Raises:
        UsageError: the options contradict each other, or the output can't be written or holds something else.
        InterruptedExport: Ctrl-C during the search; the best so far was written.
        UnsupportedError: the model can't be read or run.
        InputError: the calibration data doesn't fit the model.
    """
    options = options or Options()
    check_options(options)
    check_output(output)
    # What is wrong with a key is said now, not after minutes.
    signature_bytes = 0 if options.sign is None else front_size.SECTION_BYTES + sign.size_of_signatures(options.sign)
    if example_inputs is not None:
        loader_options["example_inputs"] = example_inputs
    # Weights are coded in parallel already; with the BLAS's own threads besides, the search takes three times as long.
    with threadpool_limits(1, "blas"), scratch_folder() as folder:
        deadline = None if options.time_limit is None else time.monotonic() + options.time_limit
        show = progress or (lambda phase, done, total: None)
        work = Work(options, folder, show, signature_bytes, deadline=deadline)
        loaded = load(source, work, **loader_options)
        calibrated = calibrate(loaded, work)
        proven = build_and_prove(calibrated, work)
        result = write(proven, loaded.source, Path(output), work)
    if proven.built.interruption is not None:
        raise InterruptedExport(result) from proven.built.interruption
    return result


def load(model: Any, work: Work, **loader_options: Any) -> Loaded:
    """Read a model, make sure that ONNX Runtime runs it, and record what it answers."""
    with work.timed("load"):
        graph = loaders.load(model, **loader_options)
        skeletons = builder_for(graph)
        check_runnable(graph, skeletons)
        model_id = _model_id(model, work.options)
    with work.timed("reference"):
        # Where every bit is kept, or nothing is measured, it doesn't matter how typical inputs are.
        generate = partial(statistics.excite, graph, work.folder, work.options.jobs)
        reference = make_reference(
            graph,
            skeletons,
            work.subfolder("original"),
            work.options.calib,
            generate if work.method.has_default else None,
        )
    size = source_size(graph)
    source = Source(model_id, size.bytes, size.numbers, reference, score_outputs(graph))
    # A metric that doesn't suit the outputs is said now, not after the search.
    source.damage(work.options, reference.outputs)
    work.notes.extend(source.doubts(work.options))
    return Loaded(source, graph, skeletons)


def calibrate(loaded: Loaded, work: Work) -> Calibrated:
    """Prepare the graph for the method, and measure the statistics that it needs."""
    with work.timed("search"):
        graph = work.method.prepare(loaded.graph)
        skeletons = loaded.skeletons if graph is loaded.graph else builder_for(graph)
        feeds, folder = loaded.source.reference.calibration, work.subfolder("calibration")
        needs = work.method.needs(loaded.source.effort(work.options))
        measured = statistics.collect(graph, needs, feeds, folder, work.options.jobs)
        if statistics.COVARIANCES in measured and (note := statistics.shortage(measured[statistics.COVARIANCES])):
            work.notes.append(note)
    return Calibrated(loaded.source, graph, skeletons, measured)


def build_and_prove(calibrated: Calibrated, work: Work) -> Proven:
    """Build the seed, assemble it as a device does, compare its outputs, measure its memory, sign it.

    Room is kept for the sections that are added at the end. Where they took another size, so that the seed misses the
    goal or leaves more of it unused than it may, it is built once more.
    """
    source, goal = calibrated.source, calibrated.source.goal(work.options)
    reserved = front_size.front_bytes(source, work)
    built = plan_and_build(calibrated, reserved, work)
    assembled, judgement = prove(built, source, work)
    memory = measure_memory(source, work)
    proven = Proven(built, seal(assembled, memory, work), judgement)
    needed = proven.front_bytes + _FRONT_SLACK
    if goal is None or built.interruption is not None or _fits(proven.draft.size, goal):
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
    best: Built | None = None
    before: Plans | None = None
    for _ in range(_BUILDS_MAX):
        try:
            planned = plan(calibrated, wanted, front_bytes, encoder, work)
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
        if _fits(size, goal) or (not _can_grow(built) if size <= goal else not planned.met):
            break
        wanted += int(goal * (1 + _USED_LEAST) / 2) - size
        if wanted < front_bytes:
            break
    assert best is not None
    return best


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
            model=_model(calibrated.source, work.options),
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
    return Planned(
        calibrated.graph, calibrated.skeletons, choice.plans, choice.met, encoder, evaluator.trail, interruption
    )


def build(planned: Planned, source: Source, work: Work) -> Built:
    """Code all weights and put them together with the skeleton."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        work.progress("encode", done, planned.graph.parameters)

    with work.timed("encode"):
        streams = planned.encoder.encode(planned.plans, advance)
        made = draft.build(planned.graph, streams, _model(source, work.options), planned.skeletons)
        sizes = planned.encoder.estimate_bytes(planned.plans)
    return Built(planned.graph, planned.plans, made, planned.met, planned.trail, planned.interruption, sizes)


def prove(built: Built, source: Source, work: Work) -> tuple[SeedDraft, Judgement]:
    """Assemble the seed as a device does and compare its outputs with the original's.

    Returns:
        The draft with the weights' digest and the golden sample, and how far the outputs are from the original's.
    """
    reference = source.reference
    with work.timed("check"):
        assembled = work.subfolder("assembled")
        made = built.draft.assemble(assembled)
        threads = backends.usable_cores()
        *outputs, sampled = run.run_all(assembled, [*reference.feeds, reference.sample], "fast", threads)
        errors = compare.compare(reference.outputs, outputs, reference.noisy)
        line = source.line(work.options)
        kept = line is not None and line.excess(reference.outputs, outputs, reference.feeds) <= 1
        judgement = Judgement(errors, source.damage(work.options, outputs), kept, source.error_rates(outputs))
        golden = golden_sample.make_golden(
            assembled,
            reference.recipes,
            reference.sample,
            GOLDEN_RNG_SEED,
            golden_sample.least_relative_tolerance(built.graph),
            {("fast", threads): sampled},
            reference.noisy,
            front_size.proof_bytes(source, work),
        )
    return replace(made, header=replace(made.header, golden=golden.pack() if golden else None)), judgement


def measure_memory(source: Source, work: Work) -> bytes | None:
    """Measure what sessions of the assembled model need, as section FOOTPRINT; None where nothing is measured."""
    reference = source.reference
    with work.timed("footprint"):
        work.progress("footprint", 0, 1)
        # Generated inputs are as small as the model takes them; only real ones say what sizes are used.
        measured = footprint.measure(
            work.subfolder("assembled"), inputs=reference.specs, sample=reference.call, generated=reference.sample
        )
        work.progress("footprint", 1, 1)
    return thinning.thinned(measured, front_size.proof_bytes(source, work)).pack() if measured else None


def seal(made: SeedDraft, memory: bytes | None, work: Work) -> SeedDraft:
    """Add the measured memory and, where there is a key, the signature."""
    header = replace(made.header, footprint=memory)
    if work.options.sign is not None:
        header = replace(header, signature=sign.make_signature(to_sign(header), work.options.sign))
    return replace(made, header=header)


def write(proven: Proven, source: Source, output: Path, work: Work) -> Result:
    """Put the file in place once its bytes have been read back and checked."""
    built, made, options = proven.built, proven.draft, work.options
    with work.timed("write"):
        # Not beside the output, which may be a pipe; and not to stay, so that only the copy needs to reach the disk.
        whole = work.subfolder("written") / "seed"
        with open(whole, "wb") as file:
            size = made.write_into(file)
        # Whatever this machine's allowed signers are: the seed isn't for it alone.
        written = seed_runtime.open(whole, enforce=False)
        written.check()
        with open(whole, "rb") as copied, atomic_write(output) as target:
            shutil.copyfileobj(copied, target)
    goal, signature = source.goal(options), made.header.signature
    return Result(
        path=output,
        bytes=size,
        ratio=source.ratio(size),
        parameters=source.parameters,
        bits_per_weight=8 * size / max(1, source.parameters),
        outputs=proven.judgement.errors,
        goal_met=(goal is None or size <= goal) and (options.quality is None or built.met),
        seconds=work.seconds,
        inputs=source.reference.kind,
        inputs_note=source.reference.note,
        notes=tuple(work.notes),
        graph=built.graph,
        plans=built.plans,
        seed=made,
        digest=written.digest.hex(),
        signed_with=None if signature is None else describe_key(signature),
        default=goal is None and options.quality is None and work.method.has_default,
        damage=proven.judgement.damage,
        metric=source.metric(options).name,
        line=line.text if goal is None and work.method.has_quality and (line := source.line(options)) else "",
        line_kept=proven.judgement.line_kept,
        points=tuple(built.trail.points),
        weight_bytes=built.weight_bytes,
        weight_damages=dict(built.trail.damages),
        effort=options.effort,
        timed_out=built.trail.expired_in_search,
        error_rates=proven.judgement.error_rates,
    )


def _can_grow(built: Built) -> bool:
    """Return whether other plans could make the seed larger, and its error smaller."""
    return any(plan.adjustable for plan in built.plans.values())


def _fits(size: int, goal: int) -> bool:
    """Return whether a seed keeps its goal and leaves no more of it unused than it may."""
    return _USED_LEAST * goal <= size <= goal


def _rank(size: int, goal: int) -> tuple[bool, int]:
    """Order sizes from worst to best: those that keep the goal are better, and of these the largest, else the least."""
    return (True, size) if size <= goal else (False, -size)


def _model(source: Source, options: Options) -> ModelInfo:
    return ModelInfo(
        model_id=source.model_id,
        version=options.model_version,
        feature_level=FEATURE_LEVEL,
        parameters=source.parameters,
        source_bytes=source.weight_bytes,
    )


def _model_id(source: Any, options: Options) -> str:
    """Return the model id that was given, or one made of a file's name or a module's class."""
    text = Path(source).stem if isinstance(source, str | os.PathLike) else type(source).__name__
    model_id = options.model_id or re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:100] or "model"
    if len(model_id.encode()) > STRING_MAX or not primitives.printable(model_id):
        raise UsageError(f"a model id has at most {STRING_MAX} bytes, all printable; {model_id!r} can't be one")
    return model_id
