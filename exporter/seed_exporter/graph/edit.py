"""Names and nodes of ONNX graphs: find, rename and drop them without changing what the model computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx

from seed_exporter.graph.model import all_graphs, subgraphs


class Names:
    """Every value name of a model, with the number of places that define it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.defined: Counter[str] = Counter()
        for inner in all_graphs(graph):
            self.defined.update(set(definitions(inner)))

    def fresh(self, wanted: str) -> str:
        """A name that nothing has yet, `wanted` itself if it is free; it is taken from now on."""
        name, number = wanted, 0
        while name in self.defined or not name:
            number += 1
            name = f"{wanted}_{number}"
        self.defined[name] = 1
        return name


def definitions(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that this graph itself gives to values, without those of nested graphs."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)


def rename_uses(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> None:
    """Make the nodes of `graph` and of graphs nested in it read other values.

    A nested graph that defines a name itself keeps its own.
    """
    if not new_names:
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in new_names:
                node.input[index] = new_names[name]
        for inner in subgraphs(node):
            own = set(definitions(inner))
            visible = {old: new for old, new in new_names.items() if old not in own}
            rename_uses(inner, visible)


def used_names(graph: onnx.GraphProto) -> set[str]:
    """Names that nodes at any depth read or that leave a graph."""
    used: set[str] = set()
    for inner in all_graphs(graph):
        for node in inner.node:
            used.update(node.input)
        used.update(value.name for value in inner.output)
    used.discard("")
    return used


def drop_unused(graph: onnx.GraphProto) -> None:
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
    if len(kept) < len(graph.node):
        replace(graph.node, [graph.node[index] for index in sorted(kept)])
    keep_initializers(graph, needed)


def keep_initializers(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove all other initializers of this graph."""
    kept = [tensor for tensor in graph.initializer if tensor.name in names]
    if len(kept) < len(graph.initializer):
        replace(graph.initializer, kept)


def replace(field: Any, messages: Iterable[Any]) -> None:
    """Make copies of `messages`, which may come from the field itself, the elements of a repeated field."""
    kept = []
    for message in messages:
        copy = type(message)()
        copy.CopyFrom(message)
        kept.append(copy)
    del field[:]
    field.extend(kept)
