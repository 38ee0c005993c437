"""Store the rows of a table once that are the same, such as those of tokens that pruning has set to 0.

A mask of a bit a row says which rows are left; the graph counts them to find a row's new place, which ONNX Runtime does
when it opens the model. BERT-tiny's healed table has 3,191 of 30,522 rows left: 1.6 MB in place of 15.6. What the mask
takes of a seed, the codec of the table no longer does: of such a table of zeros and drawn integers, 50.0 KB stayed
49.9. With a byte a row it became 50.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.graph.edit import FreshNames, prepend
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of, plain_domain
from seed_exporter.shrink.places import Places
from seed_exporter.shrink.tensors import with_arrays

_OPSET: Final = 11
"""Opset from which on numbers can be summed up along an axis."""
_PLACE_BYTES: Final = 16
"""What a row must save on average for its place in memory, with room for the two nodes and the mask [B]."""


def without_repeated_rows(graph: Graph, places: Places) -> Graph:
    """Return a graph whose tables hold their most frequent row once; the graph itself where that saves little.

    Only tables are touched of which nodes select rows and which nothing else reads.

    Args:
        graph: the graph.
        places: is told what is left of its initializers.
    """
    index, names = GraphIndex(graph), FreshNames(graph)
    if opset_of(graph.model) < _OPSET:
        return graph
    main = copy_of(graph.model.graph)
    arrays: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    new: dict[str, str] = {}
    # Messages keep their identity for as long as somebody holds them.
    held = list(index.graph.node)
    for weight in graph.weights.values():
        left = _rows_left(weight) if _is_table(weight, index, {id(node) for node in held}) else None
        if left is None:
            continue
        new[weight.name] = names.take(f"{weight.name}.places")
        # The first row is the repeated one, which all rows read that aren't left.
        rows = np.concatenate([[np.argmin(left)], np.flatnonzero(left)])
        places.keep(weight.name, 0, rows)
        arrays[weight.name] = weight.data[rows]
        nodes += _counting(left, new[weight.name], names, arrays)
    if not new:
        return graph
    selecting: list[onnx.NodeProto] = []
    for node in main.node:
        if node.op_type == "Gather" and node.input[0] in new:
            place = names.take(f"{node.output[0]}.place")
            selecting.append(helper.make_node("Gather", [new[node.input[0]], node.input[1]], [place]))
            node.input[1] = place
        selecting.append(node)
    return with_arrays(graph, prepend(copy_of(main, node=selecting), nodes), arrays)


def _counting(left: np.ndarray, result: str, names: FreshNames, arrays: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """Return the nodes that count the rows that are left, 1, 2, ..., 0 for those that aren't.

    Args:
        left: `(rows,)`, which rows are left.
        result: name of the numbers, `(rows,)` int32.
        names: makes names.
        arrays: gets the initializers that the nodes read.
    """

    def constant(values: np.ndarray) -> str:
        name = names.take("rows")
        arrays[name] = values
        return name

    nodes: list[onnx.NodeProto] = []

    def made(op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or names.take("rows")
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    # A bit is moved to the upper end of its byte, and from there to the lower one.
    bits = made(
        "BitShift", constant(np.packbits(left)[:, None]), constant(np.arange(8, dtype=np.uint8)), direction="LEFT"
    )
    bits = made("BitShift", bits, constant(np.array(7, np.uint8)), direction="RIGHT")
    bits = made("Reshape", bits, constant(np.array([-1])))
    if left.size % 8:
        bits = made("Slice", bits, constant(np.array([0])), constant(np.array([left.size])))
    ones = made("Cast", bits, to=TensorProto.INT32)
    made("Mul", ones, made("CumSum", ones, constant(np.array(0))), output=result)
    return nodes


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
