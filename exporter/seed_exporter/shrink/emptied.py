"""Remove branches that add nothing: a value that is constant is replaced where it meets another one."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from seed_exporter.graph.edit import FreshNames, rename_uses
from seed_exporter.graph.index import Dim
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.shrink.tensors import with_arrays
from seed_exporter.shrink.values import Values

_NEUTRAL: Final = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Max": None, "Min": None, "Sum": 0.0}
"""Operators of two values that meet, with the second one that leaves the first as it is."""


def without_emptied(values: Values) -> Graph:
    """Return the analysed graph with constants in place of values that are constant; the graph itself without any.

    What made these values goes where nothing else reads it, and so do nodes whose constant changes nothing.
    """
    main, returned = copy_of(values.index.graph), values.index.returned
    names = FreshNames(main)
    arrays: dict[str, np.ndarray] = {}
    renamed: dict[str, str] = {}
    for node in main.node:
        found = _constant_operand(values, node)
        if found is None:
            continue
        index, known = found
        other, result = node.input[1 - index], node.output[0]
        commutes = index == 1 or node.op_type not in ("Sub", "Div")
        if commutes and np.all(known == _NEUTRAL[node.op_type]):
            if result in returned:
                node.CopyFrom(onnx.helper.make_node("Identity", [other], [result], name=node.name))
            renamed[result] = renamed.get(other, other)
            continue
        name = names.take("constant")
        arrays[name] = np.ascontiguousarray(known)
        node.input[index] = name
    if not arrays and not renamed:
        return values.graph
    return with_arrays(values.graph, rename_uses(main, renamed), arrays)


def _constant_operand(values: Values, node: onnx.NodeProto) -> tuple[int, np.ndarray] | None:
    """Return which operand of a node is a value that is constant, and its elements; None without one."""
    if node.op_type not in _NEUTRAL or node.domain or len(node.input) != 2:
        return None
    for index, name in enumerate(node.input):
        known = values.known(name)
        if values.is_constant(name) or known is None or np.isnan(known).any():
            continue
        # Where the other one is broadcast, the constant has the shape of the result.
        if _is_same(values.shapes.get(node.input[1 - index]), values.shapes.get(node.output[0])):
            return index, known
    return None


def _is_same(one: tuple[Dim, ...] | None, other: tuple[Dim, ...] | None) -> bool:
    """Return whether two shapes are known to be the same."""
    return one is not None and one == other and None not in one
