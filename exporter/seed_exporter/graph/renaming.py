"""Rename all values of a graph."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from seed_exporter.graph.index import all_graphs


def rename_all_in_place(graph: onnx.GraphProto, new_name: Callable[[str], str]) -> None:
    """Rename all values of a graph and of those nested in it, but the main graph's inputs and outputs themselves.

    Args:
        graph: is changed.
        new_name: asked for each place where a name stands, results of a node before what it reads. It must be
            injective, so that every name refers to the same value as before, in every scope.
    """
    for inner in all_graphs(graph):
        if inner is not graph:
            for value in [*inner.input, *inner.output]:
                value.name = new_name(value.name)
        for tensor in inner.initializer:
            tensor.name = new_name(tensor.name)
        for node in inner.node:
            # Results first: numbers then grow along the graph.
            node.output[:] = [new_name(name) for name in node.output]
            node.input[:] = [new_name(name) for name in node.input]
        for value in inner.value_info:
            value.name = new_name(value.name)
