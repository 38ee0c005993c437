"""Decide what layers multiply on the device, and find out what that adds to a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from seed_exporter.build.streams import restored
from seed_exporter.evaluate import run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import lossless
from seed_exporter.records import Loaded, Work
from seed_exporter.skeletons import builder_for
from seed_exporter.targets import Lowered
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.format.sections.holes import NAME_DIGEST_BYTES

SHARE_MOST: Final = 0.5
"""Share of what a seed may lose that rounding the layers' inputs may lose alone; the rest is for the weights."""
_HOLE_BYTES: Final = NAME_DIGEST_BYTES + 4
"""Size of a hole in the header, roughly [B]."""
_SCALES_SHARE: Final = 0.05
"""Share of the scales' bytes that is left of them: most of a weight's are the same."""


def choose_target(model: Loaded, work: Work) -> Work:
    """Return what all stages share, with a target that keeps the model's quality where its weights were exact.

    Where rounding the layers' inputs alone costs too much, layers multiply floats.

    Raises:
        UnsupportedError: this ONNX Runtime lacks an operator of the target.
    """
    target = work.target
    if target.lower is None:
        return work
    with work.timed("target"):
        work.progress("target", 0, 0)
        lowered = target.lowered(model.graph, lossless(model.graph))
        check_runnable(lowered.graph)
        if target.fallback is None:
            return work
        line, reference = model.source.line(work.options), model.source.reference
        if line is None:
            return work
        feeds = [*reference.feeds, *line.mixed.feeds]
        excess = line.excess(reference.outputs, _outputs(lowered, feeds, work), reference.feeds)
        if excess <= SHARE_MOST:
            return work
        work.notes.append(
            f"layers multiply floats on the device, made of {target.name} each time: with their inputs rounded as "
            f"well, the outputs would lose {excess:.2g} times of what they may, before any weight is rounded coarsely"
        )
        return replace(work, options=replace(work.options, dtype=target.fallback))


def _outputs(lowered: Lowered, feeds: list, work: Work) -> list:
    folder, plans = work.subfolder("target"), lowered.plans
    write_model_files(lowered.graph, folder, lambda weight: restored(weight, plans[weight.name]))
    return run.run_all(folder, feeds)


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
