"""Decide what the device holds and its layers multiply, and find out what that adds to a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from seed_exporter.build.streams import restored
from seed_exporter.calibrate import Subject
from seed_exporter.evaluate import run
from seed_exporter.evaluate.line import Line
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_exporter.option_checks import check_target
from seed_exporter.quantize.allocate import lossless
from seed_exporter.records import Loaded, Work
from seed_exporter.results import Options
from seed_exporter.skeletons import builder_for
from seed_exporter.targets import AUTO, FP32
from seed_exporter.targets.grids import other_floats
from seed_exporter.targets.ranges import measure
from seed_runtime.agent.processors import parse_processor, this_processor
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.format.sections.holes import NAME_DIGEST_BYTES

DECISIONS_MOST: Final = 6.0
"""Times of what a seed may lose by default that rounding the inputs of layers may lose alone, where outputs decide: .88
of equal decisions. Where .9 of EfficientNet-lite0's were equal, as many were right within 2 %."""
COSINE_MOST: Final = 2.5
"""The same where outputs are compared by their cosine: .95."""
_LOSES: Final = "with {} outputs would lose {:.2g} times of what they may before any weight is rounded coarsely"
_ROOM: Final = 1.5
"""Times of what rounding inputs loses that a seed may lose in all, where that is more than the default."""
_KEPT: Final = (
    "{} multiply floats on the device, made of integers each time: with their inputs rounded as well, outputs would "
    "lose {:.2g} times of what they may before any weight is rounded coarsely"
)
_IS: Final = "--dtype auto is {} for {}: {}"
_FALLS_BACK: Final = "--dtype auto takes fp32 for this model: {}"
_OTHER_FLOATS: Final = "matrices of {} stay as they are, as integers are made of float32; convert the model to it first"
_FLOAT_OPERATORS: Final = frozenset({"ConvTranspose", "GRU", "LSTM", "RNN"})
"""Operators that multiply floats whatever the device holds."""
_HOLE_BYTES: Final = NAME_DIGEST_BYTES + 4
"""Size of a hole in the header, roughly [B]."""
_SCALES_SHARE: Final = 0.05
"""Share of the scales' bytes that is left of them: most of a weight's are the same."""


def resolve_dtype(options: Options) -> tuple[Options, list[str]]:
    """Return options with a dtype in place of `auto`, and notes that say which and why.

    Raises:
        UsageError: there is no such device, or one is given and the dtype doesn't depend on it.
    """
    if options.dtype != AUTO:
        if options.device is not None:
            raise UsageError("--for names the device of --dtype auto; add --dtype auto, or leave out --for")
        return options, []
    processor = this_processor() if options.device is None else parse_processor(options.device)
    name = f"this machine ({processor}), as --for names no other" if options.device is None else options.device
    if options.device is not None and options.device != str(processor):
        name += f" ({processor})"
    chosen = replace(options, dtype=processor.dtype)
    try:
        check_target(chosen)
    except UsageError as error:
        reason, _, _ = str(error).partition("; ")
        return replace(options, dtype=FP32.name), [_FALLS_BACK.format(reason)]
    return chosen, [_IS.format(chosen.dtype, name, processor.reason)]


def choose_target(model: Loaded, work: Work) -> Work:
    """Return what all stages share, with a target that keeps the model's quality where its weights were exact.

    Where rounding the inputs of convolutions costs too much, these get floats; where that of other layers does, all do.
    A dtype that was to suit the device is fp32 then, as floats made of integers each time are slower.

    Raises:
        UnsupportedError: this ONNX Runtime lacks an operator of the target.
    """
    if work.target.lower is None:
        return work
    if work.is_auto and model.graph.file is not None:
        return _in_floats(work, "a TFLite model keeps what it holds")
    with work.timed("target"):
        work.progress("target", 0, 0)
        graph, reference = work.method.prepare(model.graph), model.source.reference
        names = [] if work.target.rounds is None else work.target.rounds(graph)
        if names and reference.kind == "real":
            subject = Subject(graph, reference.calibration, work.subfolder("calibration"), work.options.jobs)
            ranges = measure(subject, names)
            # Without the range of one value, as where it is infinite, convolutions get floats.
            work.findings.ranges = ranges if ranges.keys() >= set(names) else {}
        lowered = work.target.lowered(graph, lossless(graph)).graph
        if work.is_auto and (reason := _slower(lowered, names, work)):
            return _in_floats(work, reason)
        if work.target.restricted and (kept := other_floats(graph)):
            note = _OTHER_FLOATS.format(" and ".join(kept))
            if work.is_auto and lowered.weights.keys() <= graph.weights.keys():
                return _in_floats(work, note)
            work.notes.append(f"--dtype {work.target.name}: {note}")
        try:
            check_runnable(lowered)
        except UnsupportedError as error:
            if not work.is_auto:
                raise
            return _in_floats(work, str(error).partition("; ")[0])
        line = model.source.line(work.options)
        if work.target.fallback is None or line is None:
            return work
        decides = any(metric.name == "agreement" for metric, _ in line.criteria)
        most = DECISIONS_MOST if decides else COSINE_MOST
        excess = _excess(graph, model, line, work)
        if excess > most and work.is_auto:
            return _in_floats(work, _LOSES.format(work.target.name, excess))
        if excess > most and work.findings.ranges:
            work.findings.ranges = {}
            work.notes.append(_KEPT.format("convolutions", excess))
            excess = _excess(graph, model, line, work)
        if excess <= most:
            lost = max(1.0, _ROOM * excess) * (1 - (work.target.decided or 0))
            return replace(work, options=replace(work.options, decided=1 - lost))
        work.notes.append(_KEPT.format("layers", excess))
        return replace(work, options=replace(work.options, dtype=work.target.fallback))


def _in_floats(work: Work, reason: str) -> Work:
    """Return what all stages share, with the source's floats in place of what was to suit the device.

    What the device alone would have is no longer true, and its note goes.
    """
    work.findings.ranges = {}
    beginning, _, _ = _IS.partition("{}")
    work.notes[:] = [note for note in work.notes if not note.startswith(beginning)]
    work.notes.append(_FALLS_BACK.format(reason))
    return replace(work, options=replace(work.options, dtype=FP32.name))


def _slower(lowered: Graph, names: Sequence[str], work: Work) -> str:
    """Say which operators would get floats made of integers each time they run; "" for none.

    Args:
        lowered: the graph as the device would run it.
        names: of the values that its convolutions would round.
        work: has their ranges, where they were measured.
    """
    nodes = list(GraphIndex(lowered).nodes)
    made = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    found = {node.op_type for node in nodes if made.intersection(node.input[1:])}
    floats = found & (_FLOAT_OPERATORS if names else _FLOAT_OPERATORS | {"Conv"})
    if floats:
        return f"{', '.join(sorted(floats))} would get floats made of integers each time, which takes longer"
    if names and not work.findings.ranges:
        return "convolutions multiply bytes only within ranges that are measured on --calib"
    return ""


def _excess(graph: Graph, model: Loaded, line: Line, work: Work) -> float:
    """Return the share of what a seed may lose that its target loses with weights as exact as it holds them."""
    lowered, reference = work.target.lowered(graph, lossless(graph)), model.source.reference
    folder, plans = work.subfolder("target"), lowered.plans
    write_model_files(lowered.graph, folder, lambda weight: restored(weight, plans[weight.name]))
    outputs = run.run_all(folder, [*reference.feeds, *line.mixed.feeds])
    return line.excess(reference.outputs, outputs, reference.feeds)


def added_bytes(graph: Graph, work: Work) -> int:
    """Estimate how much larger a seed of a graph is for its target, at equal integers [B]."""
    if work.target.lower is None:
        return 0
    lowered = work.target.lowered(graph, lossless(graph)).graph
    scales = sum(weight.size for name, weight in lowered.weights.items() if weight.dtype.name == "float32")
    floats = sum(
        weight.size for name, weight in graph.weights.items() if name in lowered.weights and weight.dtype.bits == 32
    )
    added = _skeleton_bytes(lowered) - _skeleton_bytes(graph)
    added += _HOLE_BYTES * (len(lowered.weights) - len(graph.weights))
    return max(0, added + int(_SCALES_SHARE * max(0, scales - floats)))


def _skeleton_bytes(graph: Graph) -> int:
    return len(pack(builder_for(graph).build_unchecked(list(graph.weights)).carried)[1])
