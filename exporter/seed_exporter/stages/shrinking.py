"""Cut dead channels out of the model, and prove that it computes what it did."""

from __future__ import annotations

from typing import Final

from seed_exporter.evaluate import compare, run
from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.model import Graph
from seed_exporter.records import Loaded, Work
from seed_exporter.results import Source
from seed_exporter.shrink.cost import shrinkage
from seed_exporter.shrink.run import shrink as without_dead_channels
from seed_exporter.skeletons import SkeletonBuilder, builder_for
from seed_runtime.errors import SeedError

EQUAL: Final = 1e-5
"""Error of an output, as a share of its root mean square, up to which the shrunk model computes the same.

Models of half floats and of integers round more: theirs is that of golden samples.
"""
_KEPT: Final = "--shrink has left the model as it is: "


def shrink(loaded: Loaded, work: Work) -> Loaded:
    """Return the model without dead channels; the model itself where none is dead, or outputs would change.

    The facts of the original stay: ratios and errors refer to it.
    """
    with work.timed("shrink"):
        work.progress("shrink", 0, 0)
        graph = without_dead_channels(loaded.graph)
        if graph is loaded.graph:
            work.notes.append(f"{_KEPT}no channel is dead; set whole rows of weights to 0 before, or heal the model")
            return loaded
        skeletons = builder_for(graph)
        if difference := _difference(graph, skeletons, loaded.source, work):
            work.notes.append(f"{_KEPT}{difference}; report this, with the model, as a fault of --shrink")
            return loaded
        reference = loaded.source.reference
        sizes = {name: array.shape for name, array in (reference.call or reference.sample).items()}
        found = shrinkage(loaded.graph, graph, sizes)
        work.notes.append(found.text())
    return Loaded(loaded.source, graph, skeletons, found)


def _difference(graph: Graph, skeletons: SkeletonBuilder, source: Source, work: Work) -> str:
    """Say how a shrunk graph differs from the original; "" if it computes the same."""
    reference, folder = source.reference, work.subfolder("shrunk")
    try:
        check_runnable(graph, skeletons)
        write_model_files(graph, folder, builder=skeletons)
        outputs = run.run_all(folder, [*reference.feeds, reference.sample])
    except SeedError as failure:
        return f"what would be left of it can't be run ({failure})"
    errors = compare.compare([*reference.outputs, reference.sample_outputs], outputs, reference.noisy)
    rounding = golden_sample.least_relative_tolerance(graph)
    equal = rounding if rounding > golden_sample.RELATIVE else EQUAL
    for name, error in errors.items():
        if not (error.identical or error.noisy or error.relative <= equal):
            return f"its output {name} would have an error of {error.relative:.2g}"
    return ""
