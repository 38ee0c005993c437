"""The vectors that a seed codes: in the model as a device has it, and in a graph that trains them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seed_exporter.build.streams import Plans, restored
from seed_exporter.graph.index import with_uses
from seed_exporter.graph.model import Graph
from seed_exporter.training import prepare
from seed_exporter.training.prepare import is_vector
from seed_runtime.backends import Array


def as_assembled(graph: Graph, plans: Plans) -> Graph:
    """Return the graph with the weights that a device makes of these plans."""
    weights = {name: replace(weight, data=restored(weight, plans[name])) for name, weight in graph.weights.items()}
    return replace(graph, weights=weights)


def with_vectors(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """Return the graph with other values of some weights."""
    weights = dict(graph.weights)
    for name, value in values.items():
        weight = weights[name]
        weights[name] = replace(weight, data=value.astype(weight.dtype.storage).reshape(weight.shape))
    return replace(graph, weights=weights)


def trainable(graph: Graph) -> Graph:
    """Return the graph prepared for a training graph that trains the vectors which the seed codes, and nothing else.

    A vector that two nodes share, and that training would need twice, is left as it is.

    Raises:
        UnsupportedError: onnx can't convert the model to the opset of gradients.
    """
    graph = with_uses(graph)
    prepared = graph if graph.trains else prepare(graph)
    vectors = frozenset(
        name
        for name, weight in graph.weights.items()
        if is_vector(weight) and name in prepared.weights and len(prepared.weights[name].uses) == len(weight.uses)
    )
    return replace(prepared, trained=vectors)
