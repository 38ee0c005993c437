"""Cut dead channels out of the model, and prove that it computes what it did."""

from __future__ import annotations

from typing import Final

from seed_exporter.records import Loaded, Work
from seed_exporter.shrink.run import shrink as without_dead_channels
from seed_exporter.skeletons import builder_for
from seed_exporter.stages.cutting import differences, shrinkage_of

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
        skeletons, reference = builder_for(graph), loaded.source.reference
        expected = [*reference.outputs, reference.sample_outputs]
        if difference := differences(graph, skeletons, expected, loaded.source, work):
            work.notes.append(f"{_KEPT}{difference}; report this, with the model, as a fault of --shrink")
            return loaded
        found = shrinkage_of(loaded.graph, graph, loaded.source)
        work.notes.append(found.text())
    return Loaded(loaded.source, graph, skeletons, found)
