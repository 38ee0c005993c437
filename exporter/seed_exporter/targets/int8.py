"""`int8`: matrices are integers of a byte, which layers multiply by integers where ONNX Runtime does.

A MatMul or Gemm becomes DynamicQuantizeMatMul, which rounds its other operand to a byte while it runs, so that nothing
is calibrated. Rows of a table are multiplied by their step when they were selected. Everything else gets floats from
DequantizeLinear each time it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
from onnx.helper import make_node

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.integers import IntegersPlan, stored
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.matrix import coded_view, output_axis
from seed_exporter.graph.messages import attribute_of, input_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of
from seed_exporter.targets.convolutions import least_steps, out_of, round_bias, round_values, rounded_values
from seed_exporter.targets.grids import Grid, by_channel, matrices
from seed_exporter.targets.ranges import Ranges
from seed_exporter.targets.readers import Layer, Reader, Table, readers_of
from seed_exporter.targets.target import MICROSOFT, Lowered, Measured, Plans, Rewriting, Target
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.format.dtypes import BY_NAME

LARGEST: Final = 63
"""Largest magnitude of an integer of 7 bits, for those that are multiplied by integers. The kernels for processors
without VNNI add two products of a byte by a byte in 16 bits, which saturate from 65 on: 255 * 65 * 2 is 33,150."""
PAIRS: Final = 128
"""Largest sum of two integers of one sign, neighbours in a kernel, whose products with bytes these kernels add so."""
LARGEST_OF_FLOATS: Final = 127
"""Largest magnitude of one that becomes a float again."""
_AXIS_SINCE: Final = 13
"""Opset from which on DequantizeLinear has an axis."""
RESTRICTED: Final = frozenset({"input_steps", "factors", "distills"})


def lower(graph: Graph, plans: Plans, measured: Measured, *, multiplies: bool) -> Lowered:
    """Store matrices as integers of a byte.

    Args:
        graph: the graph.
        plans: of its weights.
        measured: has the ranges of what convolutions read and make, so that they multiply integers.
        multiplies: whether layers multiply integers; else they get floats.
    """
    edit, index = Rewriting(graph, plans), GraphIndex(graph)
    convolved = _round_convolutions(edit, index, graph, plans, measured.ranges)
    for weight in matrices(graph, index):
        if weight.name in convolved:
            continue
        readers = readers_of(index, weight)
        if readers is None or (not multiplies and any(isinstance(reader, Layer) for reader in readers)):
            dequantize(edit, weight, plans[weight.name], opset_of(graph.model))
        else:
            _multiply(edit, weight, plans[weight.name], readers)
    return edit.lowered()


def rounds(graph: Graph) -> Sequence[str]:
    """Return the names of the values whose ranges let convolutions multiply integers."""
    return list(rounded_values(graph, GraphIndex(graph)).values)


def _round_convolutions(
    edit: Rewriting, index: GraphIndex, graph: Graph, plans: Plans, ranges: Ranges
) -> frozenset[str]:
    """Make convolutions multiply integers; return the names of their weights, and of those that stay floats."""
    rounded, opset = rounded_values(graph, index), opset_of(graph.model)
    if not ranges.keys() >= rounded.values.keys():
        return frozenset()
    round_values(edit, index, rounded, ranges, opset >= _AXIS_SINCE)
    for each in rounded.convolutions:
        weight = graph.weights[each.node.input[1]]
        groups = attribute_of(each.node, "group", 1)
        # Kernels of single channels are multiplied by another routine, which adds nothing in 16 bits.
        pairs = None if groups > 1 and weight.shape[:2] == (groups, 1) else PAIRS
        grid = dequantize(edit, weight, plans[weight.name], opset, least_steps(graph, each, ranges), pairs)
        domain = "" if opset >= _AXIS_SINCE else MICROSOFT
        round_bias(edit, graph, each, ranges, out_of(graph, index, each.node), grid, domain)
    return frozenset(each.node.input[1] for each in rounded.convolutions) | rounded.floats


def dequantize(
    edit: Rewriting, weight: Weight, plan: Plan, opset: int, least: np.ndarray | None = None, pairs: int | None = None
) -> Grid:
    """Store a weight as integers, of which a node makes floats under the weight's name; return the integers."""
    grid = by_channel(weight, plan, output_axis(weight), LARGEST_OF_FLOATS, least, pairs)
    name = store_bytes(edit, weight, plan, grid)
    axis: dict[str, Any] = {"axis": int(np.argmax(grid.scales.shape))} if grid.scales.size > 1 else {}
    # Without zero points, ONNX Runtime moves the node behind a Reshape with a pair that rounds to unsigned bytes.
    zeros = np.zeros(grid.scales.size if axis else (), np.int8)
    inputs = [name, scales_of(edit, weight, grid), edit.constant("zero", zeros)]
    # Its older versions have no axis, and ONNX Runtime's own operator has one in every opset.
    domain = "" if opset >= _AXIS_SINCE else MICROSOFT
    edit.prepend(make_node("DequantizeLinear", inputs, [weight.name], domain=domain, **axis))
    return grid


def scales_of(edit: Rewriting, weight: Weight, grid: Grid) -> str:
    """Add a grid's steps, one or a vector of them; return their name."""
    scales = grid.scales.reshape(-1) if grid.scales.size > 1 else grid.scales.reshape(())
    return edit.constant(f"{weight.name}_scale", scales)


def store_bytes(edit: Rewriting, weight: Weight, plan: Plan, grid: Grid) -> str:
    """Put integers in the place of a weight; return their name."""
    name, int8 = edit.names.take(f"{weight.name}_int8"), BY_NAME["int8"]
    matrix = QuantizedMatrix(grid.integers.reshape(coded_view(weight)), 1.0)
    if grid.planned and isinstance(plan, GridPlan) and plan.matrix is not None and plan.matrix.delay is not None:
        # On a trellis integers take as many bits as those of one of its two grids.
        quantized = plan.quantize(weight)
        matrix = QuantizedMatrix(quantized.integers, 1.0, delay=quantized.delay)
    data = stored(grid.integers, 8, int8.name).reshape(weight.shape)
    edit.replace_weight(weight.name, Weight(name, int8, weight.shape, data), IntegersPlan(matrix, 8, grid.step))
    return name


def _multiply(edit: Rewriting, weight: Weight, plan: Plan, readers: Sequence[Reader]) -> None:
    layers = [reader for reader in readers if isinstance(reader, Layer)]
    outputs_first = any(layer.outputs_first for layer in layers) or not layers
    mixed = any(layer.outputs_first != outputs_first for layer in layers)
    tables = len(layers) < len(readers)
    # Two orders have no axis in common, and neither have a table and a layer whose inputs are its rows.
    axis = None if mixed or (layers and tables and not outputs_first) else 0 if outputs_first else 1
    grid = by_channel(weight, plan, axis, LARGEST if layers else LARGEST_OF_FLOATS)
    name = store_bytes(edit, weight, plan, grid)
    scales = scales_of(edit, weight, grid) if layers else ""
    turned = ""
    for reader in readers:
        if isinstance(reader, Table):
            _select(edit, reader, name, grid, f"{weight.name}_scales")
            continue
        operand = name
        if reader.outputs_first:
            turned = turned or edit.names.take(f"{weight.name}_turned")
            operand = turned
        replace_layer(edit, reader.node, "DynamicQuantizeMatMul", [reader.node.input[0], operand, scales])
    if turned:
        edit.prepend(make_node("Transpose", [name], [turned], perm=[1, 0]))


def replace_layer(edit: Rewriting, node: onnx.NodeProto, op: str, inputs: list[str], **attributes: Any) -> None:
    """Put one of ONNX Runtime's own operators in the place of a layer, and add what a Gemm adds."""
    added = input_of(node, 2) if node.op_type == "Gemm" else ""
    if not added:
        edit.replace_node(node, make_node(op, inputs, [node.output[0]], domain=MICROSOFT, **attributes))
        return
    product = edit.names.take(f"{node.output[0]}_product")
    edit.replace_node(
        node,
        make_node(op, inputs, [product], domain=MICROSOFT, **attributes),
        make_node("Add", [product, added], [node.output[0]]),
    )


def _select(edit: Rewriting, table: Table, name: str, grid: Grid, wanted: str) -> None:
    """Select rows of integers, and multiply them by their steps."""
    node, indices = table.node, table.node.input[1]
    rows = edit.names.take(f"{node.output[0]}_int8")
    floats = edit.names.take(f"{rows}_floats")
    nodes = [
        make_node("Gather", [name, indices], [rows], axis=0),
        make_node("Cast", [rows], [floats], to=onnx.TensorProto.FLOAT),
    ]
    if grid.scales.size > 1:
        steps = edit.names.take(f"{rows}_steps")
        by_row = edit.constant(wanted, grid.scales.reshape(-1, 1))
        nodes.append(make_node("Gather", [by_row, indices], [steps], axis=0))
    else:
        steps = edit.constant(wanted, grid.scales.reshape(()))
    edit.replace_node(node, *nodes, make_node("Mul", [floats, steps], [node.output[0]]))


TARGET: Final = Target(
    "int8", partial(lower, multiplies=True), RESTRICTED, is_exact=False, decided=0.98, rounds=rounds,
    fallback="int8-floats",
)  # fmt: skip
FLOATS: Final = Target("int8-floats", partial(lower, multiplies=False), RESTRICTED)
"""The same with layers that multiply floats: for models that lose too much when both operands are rounded."""
