"""What training asks of a graph and of this machine."""

from __future__ import annotations

import torch

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
    """Return whether all inputs and outputs have a free first axis, which counts samples."""
    for value in [*graph.model.graph.input, *graph.model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name not in graph.weights and (not dims or (dims[0].HasField("dim_value") and dims[0].dim_value > 0)):
            return False
    return True
