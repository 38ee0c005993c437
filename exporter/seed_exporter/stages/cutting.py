"""Prove that a smaller graph computes what it did, and cut out of a healed model what healing left dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from seed_exporter.build.streams import StreamEncoder, restored
from seed_exporter.evaluate import compare, run
from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.cut_plans import cut_dead
from seed_exporter.records import Planned, Work
from seed_exporter.results import Source
from seed_exporter.shrink.cost import Shrinkage, shrinkage
from seed_exporter.skeletons import SkeletonBuilder, builder_for
from seed_runtime.errors import SeedError

EQUAL: Final = 1e-5
"""Error of an output, as a share of its root mean square, up to which a smaller model computes the same.

Models of half floats and of integers round more: theirs is that of golden samples.
"""
Outputs = Mapping[str, np.ndarray]


def cut_healed(planned: Planned, original: Graph, whole: Graph, source: Source, work: Work) -> Planned:
    """Cut dead channels, heads, neurons, rows of tables and emptied blocks out of a planned model, and their plans.

    The model stays as it is if nothing is dead, or outputs would change.

    Args:
        planned: the model.
        original: what it was healed from, to say what was cut.
        whole: the same as healing began with it; what it has cut since is as small as it says.
        source: whose inputs outputs are compared on.
        work: what all stages share.
    """
    with work.timed("shrink"):
        work.progress("shrink", 0, 0)
        graph, plans = cut_dead(planned.graph, planned.plans)
        if graph is planned.graph:
            if graph.parameters == whole.parameters:
                return planned
            found = shrinkage_of(original, graph, source)
            work.notes.append(found.text())
            return replace(planned, shrinkage=found)
        skeletons, reference = builder_for(graph), source.reference
        uncut = work.subfolder("whole")
        write_model_files(
            planned.graph, uncut, lambda weight: restored(weight, planned.plans[weight.name]), planned.skeletons
        )
        *expected, sampled = run.run_all(uncut, [*reference.feeds, reference.sample])
        if difference := differences(graph, skeletons, [*expected, sampled], source, work):
            work.notes.append(
                f"what is dead was left in the model: {difference}; report this, with the model, as a fault of --heal"
            )
            return planned
        found = shrinkage_of(original, graph, source)
        work.notes.append(found.text())
    encoder = StreamEncoder(graph, work.options.jobs, trained=True)
    return replace(planned, graph=graph, plans=plans, skeletons=skeletons, encoder=encoder, shrinkage=found)


def shrinkage_of(before: Graph, after: Graph, source: Source) -> Shrinkage:
    """Compare a graph with what was left of it."""
    reference = source.reference
    sizes = {name: array.shape for name, array in (reference.call or reference.sample).items()}
    return shrinkage(before, after, sizes)


def differences(
    graph: Graph, skeletons: SkeletonBuilder, expected: Sequence[Outputs], source: Source, work: Work
) -> str:
    """Say how a smaller graph's outputs differ; "" if it computes the same.

    Args:
        graph: the smaller graph.
        skeletons: of the same graph.
        expected: outputs of the whole model for the judged inputs and the sample.
        source: whose inputs these are.
        work: what all stages share.
    """
    reference, folder = source.reference, work.subfolder("shrunk")
    try:
        check_runnable(graph, skeletons)
        write_model_files(graph, folder, builder=skeletons)
        outputs = run.run_all(folder, [*reference.feeds, reference.sample])
    except SeedError as failure:
        return f"what would be left of it can't be run ({failure})"
    errors = compare.compare(expected, outputs, reference.noisy)
    rounding = golden_sample.least_relative_tolerance(graph)
    equal = rounding if rounding > golden_sample.RELATIVE else EQUAL
    for name, error in errors.items():
        if not (error.identical or error.noisy or error.relative <= equal):
            return f"its output {name} would have an error of {error.relative:.2g}"
    return ""
