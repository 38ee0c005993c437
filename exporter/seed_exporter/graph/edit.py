"""Edit graphs: every function takes a graph and returns a new one, and its argument is never changed.

Messages hold no weights' data (Graph), so that copies are small; weights are shared between the old and the new graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

import onnx

from seed_exporter.graph.index import GraphIndex, definitions, subgraphs, used_names
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph


class FreshNames:
    """Makes names that no value of a graph has yet.

    Args:
        graph: the graph whose names, at any depth, are taken.
    """

    def __init__(self, graph: Graph | onnx.GraphProto) -> None:
        self._taken = set(GraphIndex(graph).definitions)

    def take(self, wanted: str) -> str:
        """Return a free name, `wanted` itself if it is free; it is taken from now on."""
        name, number = wanted, 0
        while name in self._taken or not name:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def with_graph(graph: Graph, edited: onnx.GraphProto) -> Graph:
    """Return the graph with an edited GraphProto, and with those of its weights that are initializers of it."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.CopyFrom(edited)
    held = {tensor.name for tensor in edited.initializer}
    return replace(graph, model=model, weights={name: each for name, each in graph.weights.items() if name in held})


def with_outputs(graph: Graph, names: Iterable[str]) -> Graph:
    """Make values that nodes of the main graph compute outputs too, after the model's own.

    Their types aren't stated: ONNX Runtime infers them.

    Args:
        graph: the graph.
        names: the values; those that are outputs already stay where they are.

    Raises:
        ValueError: no node of the main graph makes a value of this name.
    """
    index, main = GraphIndex(graph), graph.model.graph
    known = {value.name for value in main.output}
    added = [name for name in dict.fromkeys(names) if name not in known]
    for name in added:
        if name not in index.producers:
            raise ValueError(f"no node of the main graph makes {name!r}")
    return with_graph(graph, copy_of(main, output=[*main.output, *(onnx.ValueInfoProto(name=name) for name in added)]))


def name_first_results(graph: Graph, ops: Set[str]) -> Graph:
    """Give a name to the first result of each node of these operators in the main graph that leaves it unnamed."""
    edited, fresh = copy_of(graph.model.graph), FreshNames(graph)
    unnamed = [node for node in edited.node if node.op_type in ops and not (node.output and node.output[0])]
    for node in unnamed:
        node.output[:] = [fresh.take(f"{node.op_type}_results"), *node.output[1:]]
    return with_graph(graph, edited) if unnamed else graph


def rename_uses(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> onnx.GraphProto:
    """Make the nodes of `graph` and of graphs nested in it read other values.

    A nested graph that defines a name itself keeps reading its own.

    Args:
        graph: the graph.
        new_names: for each name that is read now, the name to read.
    """
    edited = copy_of(graph)
    _rename_uses_in_place(edited, new_names)
    return edited


def drop_unused(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Remove nodes whose results nothing reads, then initializers that nothing reads."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needed = {value.name for value in graph.output}
    kept: set[int] = set()
    waiting = list(needed)
    while waiting:
        index = maker.get(waiting.pop())
        if index is None or index in kept:
            continue
        kept.add(index)
        node = graph.node[index]
        reads = set(node.input).union(*(used_names(inner) for inner in subgraphs(node)))
        waiting += reads - needed
        needed |= reads
    # The default of an input stays, or callers would have to give the input.
    unread = {tensor.name for tensor in graph.initializer} - needed - {value.name for value in graph.input}
    nodes = [graph.node[index] for index in sorted(kept)]
    if len(nodes) == len(graph.node):
        return drop_initializers(graph, unread)
    return drop_initializers(copy_of(graph, node=nodes), unread)


def drop_initializers(graph: onnx.GraphProto, names: Set[str]) -> onnx.GraphProto:
    """Remove the initializers of these names."""
    if names.isdisjoint(tensor.name for tensor in graph.initializer):
        return copy_of(graph)
    return copy_of(graph, initializer=[tensor for tensor in graph.initializer if tensor.name not in names])


def prepend(
    graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], initializers: Iterable[onnx.TensorProto] = ()
) -> onnx.GraphProto:
    """Add nodes before all others, and initializers after all others."""
    return copy_of(graph, node=[*nodes, *graph.node], initializer=[*graph.initializer, *initializers])


def _rename_uses_in_place(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> None:
    if not new_names:
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in new_names:
                node.input[index] = new_names[name]
        for inner in subgraphs(node):
            own = set(definitions(inner))
            _rename_uses_in_place(inner, {old: new for old, new in new_names.items() if old not in own})
