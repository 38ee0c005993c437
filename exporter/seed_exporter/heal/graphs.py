"""What training asks of a graph and of this machine."""

from __future__ import annotations

import torch

from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.inference import weights_as_inputs, with_types
from seed_exporter.graph.linear import is_linear
from seed_exporter.graph.model import Graph


def device_of() -> str:
    """Return where it is trained: on the first GPU that torch can use, else on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def layer_outputs(graph: Graph) -> list[str]:
    """Return the results of the products with weights, whose distance to the original's trains layers before."""
    held = graph.weights.keys()
    uses = {(use.node, use.op) for weight in graph.weights.values() for use in weight.uses if is_linear(use)}
    ends = {value.name for value in graph.model.graph.output}
    results = [
        next(name for name in node.output if name)  # a recurrent layer may leave out all states but the last
        for node in graph.model.graph.node
        if (node.name, node.op_type) in uses and not held.isdisjoint(node.input)
    ]
    return [name for name in results if name not in ends]


def takes_batches(graph: Graph) -> bool:
    """Return whether all inputs and outputs have a free first axis, which counts samples.

    Outputs whose shapes aren't stated have those that are inferred.
    """
    main, stated = graph.model.graph, GraphIndex(graph).shapes
    inferred = GraphIndex(with_types(weights_as_inputs(graph)).graph).shapes
    given = {shape[0] for value in main.input if (shape := stated.get(value.name))}

    def is_free(name: str) -> bool:
        if shape := stated.get(name):
            return not isinstance(shape[0], int) or shape[0] <= 0
        return any(isinstance(size, str) and size in given for size in inferred.get(name, ())[:1])

    return all(is_free(value.name) for value in [*main.input, *main.output] if value.name not in graph.weights)
