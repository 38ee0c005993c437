"""Store the rows of a table once that are the same, such as those of tokens that pruning has set to 0.

A mask says which rows are left; the graph counts them to find a row's new place, which ONNX Runtime does when it opens
the model. BERT-tiny's healed table has 3,191 of 30,522 rows left: 1.6 MB in place of 15.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.graph.edit import FreshNames, prepend
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of, plain_domain
from seed_exporter.shrink.tensors import with_arrays

_OPSET: Final = 11
"""Opset from which on numbers can be summed up along an axis."""
_PLACE_BYTES: Final = 16
"""What a row must save on average for its place in memory, with room for the two nodes and the mask [B]."""


def without_repeated_rows(graph: Graph) -> Graph:
    """Return a graph whose tables hold their most frequent row once; the graph itself where that saves little.

    Only tables are touched of which nodes select rows and which nothing else reads.
    """
    index, names = GraphIndex(graph), FreshNames(graph)
    if opset_of(graph.model) < _OPSET:
        return graph
    main = copy_of(graph.model.graph)
    arrays: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    places: dict[str, str] = {}
    # Messages keep their identity for as long as somebody holds them.
    held = list(index.graph.node)
    for weight in graph.weights.values():
        left = _rows_left(weight) if _is_table(weight, index, {id(node) for node in held}) else None
        if left is None:
            continue
        mask, ones, sums, places[weight.name] = (names.take(f"{weight.name}.{word}") for word in _WORDS)
        axis = names.take("axis")
        # The first row is the repeated one, which all rows read that aren't left.
        arrays |= {mask: left.astype(np.uint8), axis: np.array(0), weight.name: _shortened(weight, left)}
        nodes += [
            helper.make_node("Cast", [mask], [ones], to=TensorProto.INT32),
            helper.make_node("CumSum", [ones, axis], [sums]),
            helper.make_node("Mul", [ones, sums], [places[weight.name]]),
        ]
    if not places:
        return graph
    selecting: list[onnx.NodeProto] = []
    for node in main.node:
        if node.op_type == "Gather" and node.input[0] in places:
            place = names.take(f"{node.output[0]}.place")
            selecting.append(helper.make_node("Gather", [places[node.input[0]], node.input[1]], [place]))
            node.input[1] = place
        selecting.append(node)
    return with_arrays(graph, prepend(copy_of(main, node=selecting), nodes), arrays)


_WORDS: Final = ("left", "ones", "sums", "places")
"""How the names of what is made for a table end."""


def _is_table(weight: Weight, index: GraphIndex, main: Set[int]) -> bool:
    """Return whether all that reads a weight are nodes of the main graph that select rows of it."""
    readers = index.consumers.get(weight.name, ())
    given = {value.name for value in index.graph.input}
    return (
        len(weight.shape) > 1
        and weight.data.shape == weight.shape
        and weight.name not in index.returned | given
        and index.definitions[weight.name] == 1
        and all(
            node.op_type == "Gather"
            and not plain_domain(node.domain)
            and at == 0
            and id(node) in main
            and all(each.i == 0 for each in node.attribute if each.name == "axis")
            for node, at in readers
        )
    )


def _rows_left(weight: Weight) -> np.ndarray | None:
    """Return which rows aren't the most frequent one; None where storing it once would save little."""
    rows = weight.data.reshape(len(weight.data), -1)
    hashes = [hash(row.tobytes()) for row in rows]
    (repeated, count), *_ = Counter(hashes).most_common(1)
    if (count - 1) * rows[0].nbytes <= _PLACE_BYTES * len(rows):
        return None
    first = rows[hashes.index(repeated)]
    bits = np.dtype(f"u{rows.itemsize}")
    return (rows.view(bits) != first.view(bits)).any(axis=1)


def _shortened(weight: Weight, left: np.ndarray) -> np.ndarray:
    repeated = int(np.argmin(left))
    return np.concatenate([weight.data[repeated : repeated + 1], weight.data[left]])
