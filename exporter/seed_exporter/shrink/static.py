"""Replace sizes that a graph computes by constants where they are the same in every call.

Exporters of traced models read the number of channels from a value's shape and compute other shapes from it. As
constants, they can be fitted to the channels that stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from seed_exporter.graph.index import Dim, GraphIndex
from seed_exporter.graph.inference import weights_as_inputs, with_types
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of, plain_domain
from seed_exporter.shrink.reference import computed
from seed_exporter.shrink.tensors import with_arrays

_OPS: Final = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze"}
)
"""Operators by which shapes are computed from shapes."""
_COUNT_MAX: Final = 64
"""Number of integers above which a value is no shape."""
_ROUNDS_MAX: Final = 4
"""Rounds of inference: each may tell the shapes from which others are computed."""


def with_static_sizes(graph: Graph) -> Graph:
    """Return a graph whose sizes are constants as far as shape inference knows them; the graph itself if none is.

    It also states the shapes of what is reshaped to -1 where inference leaves that size open.
    """
    for _ in range(_ROUNDS_MAX):
        index = GraphIndex(graph)
        typed = GraphIndex(with_types(weights_as_inputs(graph)).graph)
        found, stated = _sizes(graph, index, typed.shapes), _reshaped(index, typed)
        if not found and not stated:
            break
        main = graph.model.graph
        nodes = [node for node in main.node if not (node.output and node.output[0] in found)]
        known = {value.name for value in stated}
        values = [*(value for value in main.value_info if value.name not in known), *stated]
        graph = with_arrays(graph, copy_of(main, node=nodes, value_info=values), found)
    return graph


def _reshaped(index: GraphIndex, typed: GraphIndex) -> list[onnx.ValueInfoProto]:
    """Compute the one size of a reshaped value that inference leaves open: elements stay as many as they were."""
    stated = []
    for node in index.graph.node:
        if node.op_type != "Reshape" or plain_domain(node.domain):
            continue
        before, after = typed.shapes.get(node.input[0]), typed.shapes.get(node.output[0])
        if before is None or after is None:
            continue
        left: list[Dim] = list(before)
        for dim in after:
            if isinstance(dim, str) and dim in left:
                left.remove(dim)
        unknown = [axis for axis, dim in enumerate(after) if not isinstance(dim, int) and dim not in before]
        known = math.prod(dim for dim in after if isinstance(dim, int))
        count = math.prod(dim for dim in left if isinstance(dim, int))
        if len(unknown) != 1 or not known or count % known or not all(isinstance(dim, int) for dim in left):
            continue
        element = typed.types[node.output[0]].tensor_type.elem_type
        sizes: list[Dim] = list(after)
        sizes[unknown[0]] = count // known
        stated.append(onnx.helper.make_tensor_value_info(node.output[0], element, sizes))
    return stated


def _sizes(graph: Graph, index: GraphIndex, shapes: Mapping[str, Sequence[Dim]]) -> dict[str, np.ndarray]:
    """Return the values of integers that are known before the model runs, by name."""
    opset = opset_of(graph.model)
    outputs = {value.name for value in index.graph.output}
    given = {value.name for value in index.graph.input}
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in index.graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        and tensor.name not in given | graph.weights.keys()
    }
    shaped: dict[str, _Sizes] = {}
    found: dict[str, np.ndarray] = {}
    for node in index.graph.node:
        if plain_domain(node.domain) or len(node.output) != 1 or node.output[0] in outputs:
            continue
        name, chosen = node.output[0], _chosen(node, shapes, shaped, constants)
        if chosen is not None:
            shaped[name] = chosen
            result = None if np.isnan(chosen.values).any() else chosen.values.astype(chosen.dtype)
        elif node.op_type in _OPS and all(each in constants for each in node.input if each):
            result = computed(node, {each: constants[each] for each in node.input if each}, opset)
        else:
            continue
        if result is not None and result.dtype in (np.int32, np.int64) and result.size <= _COUNT_MAX:
            constants[name] = found[name] = result
    return found


@dataclass(frozen=True, eq=False)
class _Sizes:
    """Sizes of some axes, NaN for those that aren't known, and the type of integers that the graph has them in."""

    values: npt.NDArray[np.float64]
    dtype: np.dtype


def _chosen(
    node: onnx.NodeProto,
    shapes: Mapping[str, Sequence[Dim]],
    shaped: Mapping[str, _Sizes],
    constants: Mapping[str, np.ndarray],
) -> _Sizes | None:
    """Return the sizes that a node reads from a value or takes out of others; None where it does something else."""
    first = node.input[0] if node.input else ""
    if node.op_type == "Shape" and first in shapes:
        limits = {each.name: each.i for each in node.attribute}
        dims = shapes[first][slice(limits.get("start", 0), limits.get("end"))]
        return _Sizes(np.array([dim if isinstance(dim, int) else np.nan for dim in dims]), np.dtype(np.int64))
    if first not in shaped:
        return None
    sizes, given = shaped[first], [constants.get(name) for name in node.input[1:]]
    if node.op_type == "Cast":
        to = next(each.i for each in node.attribute if each.name == "to")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))
        return _Sizes(sizes.values, dtype) if dtype in (np.int32, np.int64) else None
    if node.op_type == "Gather" and given[0] is not None:
        indices, count = given[0], sizes.values.size
        inside = sizes.values.ndim == 1 and (indices >= -count).all() and (indices < count).all()
        return _Sizes(np.asarray(sizes.values[indices]), sizes.dtype) if inside else None
    if node.op_type == "Slice" and len(given) > 1 and sizes.values.ndim == 1:
        start, end, *rest = given
        step = rest[1] if len(rest) > 1 else np.array([1])
        if start is not None and end is not None and step is not None and start.size == 1 and step.reshape(-1)[0] > 0:
            window = slice(int(start.reshape(-1)[0]), int(end.reshape(-1)[0]), int(step.reshape(-1)[0]))
            return _Sizes(sizes.values[window], sizes.dtype)
    return None
