"""Prepare a model for a training graph, and prove that it computes what it did."""

from __future__ import annotations

from dataclasses import replace

from seed_exporter.records import Loaded, Work
from seed_exporter.skeletons import builder_for
from seed_exporter.stages.cutting import differences
from seed_exporter.training import prepare, training_part
from seed_runtime.errors import UnsupportedError


def prepare_training(loaded: Loaded, work: Work) -> Loaded:
    """Return the model at an opset that has gradients, with the vectors that are trained as weights of their own.

    Raises:
        UnsupportedError: the model can't be trained, or computes something else at that opset.
    """
    with work.timed("training graph"):
        graph = prepare(loaded.graph)
        skeletons, reference = builder_for(graph), loaded.source.reference
        training_part(graph, list(graph.weights))
        expected = [*reference.outputs, reference.sample_outputs]
        if difference := differences(graph, skeletons, expected, loaded.source, work):
            raise UnsupportedError(
                f"at the opset that gradients need, this model isn't the same: {difference}; export it to opset 18 or "
                f"newer, or without --finetune-graph"
            )
    return replace(loaded, graph=graph, skeletons=skeletons)
