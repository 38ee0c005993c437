"""Look up what makes, reads and describes the values of a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import onnx

from seed_exporter.graph.model import Graph, Use

Dim = int | str | None
"""A dimension: its size, the name of a free one, or None where nothing is stated."""

_PLAIN: Final = frozenset(
    {
        onnx.AttributeProto.INT,
        onnx.AttributeProto.INTS,
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.STRING,
        onnx.AttributeProto.STRINGS,
    }
)
"""Types of the attributes that a `Use` holds."""


class Consumer(NamedTuple):
    """One input of one node."""

    node: onnx.NodeProto
    input_index: int


class GraphIndex:
    """Lookups over a graph and the graphs nested in it, each made when it is first asked for.

    Read-only, and valid for as long as nobody changes the message: an edit makes a new graph, which needs a new index.
    Nodes and types are the graph's own messages, not copies.

    Args:
        graph: a graph, or the GraphProto of one.
    """

    def __init__(self, graph: Graph | onnx.GraphProto) -> None:
        self.graph: onnx.GraphProto = graph.model.graph if isinstance(graph, Graph) else graph

    @cached_property
    def graphs(self) -> tuple[onnx.GraphProto, ...]:
        """The graph and every graph nested in it, outer ones first."""
        return tuple(all_graphs(self.graph))

    @cached_property
    def nodes(self) -> tuple[onnx.NodeProto, ...]:
        """The nodes of all graphs, those of outer graphs first."""
        return tuple(node for graph in self.graphs for node in graph.node)

    @cached_property
    def producers(self) -> Mapping[str, onnx.NodeProto]:
        """Nodes of the main graph by the names of the values that they make."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Consumer, ...]]:
        """Inputs of nodes at any depth, by the name that they read, in the order of `nodes`."""
        found: dict[str, list[Consumer]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append(Consumer(node, index))
        return {name: tuple(consumers) for name, consumers in found.items()}

    @cached_property
    def definitions(self) -> Counter[str]:
        """Number of graphs that define each name."""
        counts: Counter[str] = Counter()
        for graph in self.graphs:
            counts.update(set(definitions(graph)))
        return counts

    @cached_property
    def returned(self) -> frozenset[str]:
        """The names of all outputs of all graphs."""
        return frozenset(value.name for graph in self.graphs for value in graph.output)

    @cached_property
    def types(self) -> Mapping[str, onnx.TypeProto]:
        """The types that the main graph states for its inputs, outputs and values in between."""
        return {value.name: value.type for value in [*self.graph.input, *self.graph.output, *self.graph.value_info]}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[Dim, ...]]:
        """The shapes that the main graph states, those of initializers included."""
        shapes: dict[str, tuple[Dim, ...]] = {
            name: tuple(_dim(dim) for dim in type_.tensor_type.shape.dim)
            for name, type_ in self.types.items()
            if type_.tensor_type.HasField("shape")
        }
        return shapes | {tensor.name: tuple(tensor.dims) for tensor in self.graph.initializer}

    def uses(self, name: str) -> tuple[Use, ...]:
        """Return every node input, at any depth, that reads this name."""
        return tuple(
            Use(node.op_type, index, _plain_attributes(node), node.domain, node.name)
            for node, index in self.consumers.get(name, ())
        )


def with_uses(graph: Graph) -> Graph:
    """Return the graph with the uses of each weight as its nodes are now."""
    index = GraphIndex(graph)
    return replace(
        graph, weights={name: replace(weight, uses=index.uses(name)) for name, weight in graph.weights.items()}
    )


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs among a node's attributes: bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield `graph` and every graph nested in it, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def definitions(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that this graph itself gives to values, without those of nested graphs."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)


def used_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names that nodes at any depth read or that leave a graph."""
    index = GraphIndex(graph)
    return (index.consumers.keys() | index.returned) - {""}


def _plain_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute)
        for attribute in node.attribute
        if attribute.type in _PLAIN
    }


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value
    return dim.dim_param or None
