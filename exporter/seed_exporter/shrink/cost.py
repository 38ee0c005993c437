"""Count what a graph costs: channels of its layers, and multiply-adds of a call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.inference import weights_as_inputs, with_types
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import plain_domain


@dataclass(frozen=True)
class Layer:
    """One layer before and after shrinking; 0 where it is gone.

    Attributes:
        name: of its weight.
        channels: number of outputs, neurons of a dense layer included.
        weights: number of elements.
    """

    name: str
    channels: tuple[int, int]
    weights: tuple[int, int]


@dataclass(frozen=True)
class Shrinkage:
    """What shrinking has made of a model.

    Attributes:
        layers: all layers of the original, in its order.
        weights: number of the model's weights before and after.
        multiply_adds: of one call before and after; None where sizes aren't known.
    """

    layers: tuple[Layer, ...]
    weights: tuple[int, int]
    multiply_adds: tuple[int, int] | None

    @property
    def channels(self) -> tuple[int, int]:
        """Number of channels of all layers before and after."""
        before, after = (sum(layer.channels[side] for layer in self.layers) for side in (0, 1))
        return before, after

    def as_json(self) -> dict[str, list[int] | None]:
        """Return the totals before and after."""
        return {
            "channels": list(self.channels),
            "weights": list(self.weights),
            "multiply_adds": None if self.multiply_adds is None else list(self.multiply_adds),
        }

    def text(self) -> str:
        """Say in one line what was cut."""
        before, after = self.channels
        fewer = self.weights[0] / max(1, self.weights[1])
        text = f"cut {before - after:,} of {before:,} channels" if after < before else "stored repeated rows once"
        text = f"{text}, {fewer:.1f} times fewer weights"
        if self.multiply_adds is None or not self.multiply_adds[1]:
            return text
        return f"{text}, {self.multiply_adds[0] / self.multiply_adds[1]:.1f} times fewer multiply-adds"


def shrinkage(before: Graph, after: Graph, sizes: Mapping[str, Sequence[int]]) -> Shrinkage:
    """Compare a graph with what shrinking has made of it.

    Args:
        before: the original.
        after: the same without dead channels.
        sizes: shapes of the inputs of a call.
    """
    old, new = _channels(before), _channels(after)
    layers = tuple(
        Layer(
            name,
            (channels, new.get(name, 0)),
            (before.weights[name].count, after.weights[name].count if name in after.weights else 0),
        )
        for name, channels in old.items()
    )
    costs = multiply_adds(before, sizes), multiply_adds(after, sizes)
    total = (costs[0], costs[1]) if costs[0] is not None and costs[1] is not None else None
    return Shrinkage(layers, (before.parameters, after.parameters), total)


def multiply_adds(graph: Graph, sizes: Mapping[str, Sequence[int]]) -> int | None:
    """Count the multiply-adds of the main graph's convolutions and products; None where a size isn't known.

    Args:
        graph: the graph.
        sizes: shapes of the inputs.
    """
    probe = weights_as_inputs(graph)
    named: dict[str, int] = {}
    for value in probe.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
            if dim.dim_param:
                named[dim.dim_param] = size
            dim.dim_value = size
    for value in [*probe.graph.value_info, *probe.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    shapes = GraphIndex(with_types(probe).graph).shapes
    total = 0
    for node in graph.model.graph.node:
        if plain_domain(node.domain) or node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        found = _cost(node, [shapes.get(name, (None,)) for name in (*node.input[:2], node.output[0])])
        if found is None:
            return None
        total += found
    return total


def _cost(node: onnx.NodeProto, shapes: Sequence[Sequence[object]]) -> int | None:
    known = [[size for size in shape if isinstance(size, int)] for shape in shapes]
    if any(len(one) != len(other) for one, other in zip(known, shapes, strict=True)):
        return None
    first, second, result = known
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    return math.prod(result) * (first[-2] if turned else first[-1])


def _channels(graph: Graph) -> dict[str, int]:
    """Return the number of outputs of each layer, by its weight's name."""
    found = {}
    for name, weight in graph.weights.items():
        view = linear_view(weight)
        if view is not None:
            turned = next((use for use in weight.uses if use.op == "ConvTranspose"), None)
            groups, outputs, _ = view.shape
            # The view counts the taps of a transposed convolution as outputs.
            found[name] = groups * (outputs if turned is None else weight.shape[1])
    return found
