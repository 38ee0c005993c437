"""A model on its way into a seed: the ONNX graph with its weights taken out, and the weights.

A tensor of `INLINE_MAX` bytes or more is a weight; integers begin at `INLINE_INTEGERS_MAX`.
Smaller ones (shapes, scalars) stay inside the model.
Every loader (loaders/) ends here, and everything that encodes, shrinks or rebuilds a model starts here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from seed_runtime.format.dtypes import BY_CODE, DType

INLINE_MAX = 64  # [B]: below it, a hole costs more than its values compressed within the graph
INLINE_INTEGERS_MAX = 256  # [B]: pads, shapes and axes up to here are read by ONNX Runtime's shape inference


@dataclass(frozen=True)
class Use:
    """One input of one node that reads a weight.

    `attributes` holds the node's plain attributes (integers, floats, strings and lists of them),
    so that an encoder can see transB, group or axis without searching the graph.
    """

    op: str
    index: int
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    node: str = ""


@dataclass
class Weight:
    """A tensor that lives outside the model.

    Attributes:
        name: the initializer's name in the model.
        dtype: element type; 4-bit elements are packed two to a byte, the first in the low half.
        shape: dimensions in elements.
        data: C-contiguous array of `dtype.storage`, of `shape` (packed types: one axis of bytes).
            May be a read-only map of the source file: copy it before writing.
        uses: every node input that reads it.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: np.ndarray
    uses: list[Use] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes in the weights file."""
        return self.dtype.size(self.count)

    @property
    def output_axis(self) -> int | None:
        """The axis of output channels or table entries, None where there is no natural one."""
        axes = {_output_axis(use, len(self.shape)) for use in self.uses} - {None}
        if not axes or len(self.shape) < 2:
            return None
        # A tied embedding is a table and, transposed, a matrix: its entries are the channels of both.
        return axes.pop() if len(axes) == 1 else None

    def matrix_view(self) -> tuple[int, int]:
        """(rows, columns) for coding, without moving data: `data.reshape(rows, columns)`.

        Rows are output channels or table entries where these come first in memory;
        the weights of a MatMul stay [in, out] as they lie, batches of them stack their rows.
        """
        long_axes = [size for size in self.shape if size != 1]
        if len(long_axes) <= 1 or not self.count:
            return 1, self.count
        axis = self.output_axis
        if axis is not None and axis % len(self.shape) == len(self.shape) - 1:
            return self.count // self.shape[-1], self.shape[-1]
        if any(use.op in _ROWS_BEFORE_LAST for use in self.uses):
            return self.count // self.shape[-1], self.shape[-1]
        # Leading axes of length 1 carry nothing: [1, 4h, in] has 4h rows.
        first = next(size for size in self.shape if size != 1)
        return first, self.count // first


@dataclass
class Graph:
    """A model without weights, and the weights in the order of the source.

    The model's initializers of `INLINE_MAX` bytes or more have a name, a type and dimensions, but no data:
    they are the keys of `weights`. It has no functions and no sparse initializers.
    """

    model: onnx.ModelProto
    weights: dict[str, Weight]

    @property
    def distinct_bytes(self) -> int:
        """Bytes of the source's weights, tied copies counted once: what ratios refer to."""
        return sum(weight.size for weight in self.weights.values())

    @property
    def parameters(self) -> int:
        return sum(weight.count for weight in self.weights.values())


def stays_inline(dtype: DType, size: int) -> bool:
    """Whether a tensor of `size` bytes stays inside the model."""
    return size < (INLINE_MAX if "float" in dtype.name else INLINE_INTEGERS_MAX)


def storable(code: int) -> DType | None:
    """The element type of this TensorProto.DataType; None for strings, complex and unknown ones."""
    return BY_CODE.get(code)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes: bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and every graph nested in it, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def find_uses(model: onnx.ModelProto, names: set[str]) -> dict[str, list[Use]]:
    """Every node input, at any depth, that reads one of `names`."""
    found: dict[str, list[Use]] = {name: [] for name in names}
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if names.isdisjoint(node.input):
                continue
            plain = _plain_attributes(node)
            for index, name in enumerate(node.input):
                if name in found:
                    found[name].append(Use(node.op_type, index, plain, node.domain, node.name))
    return found


_PLAIN = {
    onnx.AttributeProto.INT,
    onnx.AttributeProto.INTS,
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.FLOATS,
    onnx.AttributeProto.STRING,
    onnx.AttributeProto.STRINGS,
}

# Their weights end in the input axis, and all axes before it count output channels: [directions, 4h, in].
_ROWS_BEFORE_LAST = {"LSTM", "GRU", "RNN"}


def _plain_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute)
        for attribute in node.attribute
        if attribute.type in _PLAIN
    }


def _output_axis(use: Use, rank: int) -> int | None:
    op, index, attributes = use.op, use.index, use.attributes
    if op in ("Conv", "ConvInteger", "QLinearConv") and index in (1, 3):
        return 0
    if op == "ConvTranspose" and index == 1:
        return 1  # [in, out / group, ...]
    if op == "Gemm" and index in (0, 1):
        kept_last = (index == 1) != bool(attributes.get("transB" if index == 1 else "transA", 0))
        return rank - 1 if kept_last else 0
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        first = 0
        second = 3 if op == "QLinearMatMul" else 1
        if index == second:
            return rank - 1
        return rank - 2 if index == first and rank > 1 else None
    if op == "Gather" and index == 0:
        axis: int = attributes.get("axis", 0)
        return axis % rank if rank else None
    if op == "Transpose" and rank == 2:
        return 0  # a tied embedding on its way into a MatMul (loaders/copies.py)
    if op == "DequantizeLinear" and index == 0:
        return int(attributes.get("axis", 1)) % rank if rank > 1 else None
    return None
