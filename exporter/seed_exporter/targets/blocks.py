"""Matrices of 4 or 2 bits in blocks with a step each, as ONNX Runtime's MatMulNBits multiplies them.

A layer becomes MatMulNBits, which rounds its other operand to a byte for each block while it runs. Rows of a table are
unpacked after they were selected, by operators of every release. What is neither gets floats from integers of a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx.helper import make_node

from seed_exporter.codecs.integers import IntegersPlan, stored
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.inference import weights_as_inputs, with_types
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of
from seed_exporter.targets.grids import BLOCKS, I32, Grid, by_block, matrices
from seed_exporter.targets.int8 import dequantize, replace_layer
from seed_exporter.targets.readers import Layer, Reader, Table, readers_of
from seed_exporter.targets.target import Lowered, Measured, Plans, Rewriting
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import folded
from seed_runtime.format.dtypes import BY_NAME

RESTRICTED: Final = frozenset({"input_steps", "factors", "distills", "trellis"})
_IR_OF_2_BITS: Final = 13
"""IR version that came with integers of 2 bits, and that ONNX Runtime takes from 1.24 on, as it does their layers."""
_BYTES: Final = 4
"""Value of MatMulNBits' accuracy_level at which its first operand is rounded to bytes: 2 to 4 times as fast for one
row as floats, which round nothing."""


def lower(graph: Graph, plans: Plans, measured: Measured, *, bits: int, table_bits: int) -> Lowered:
    """Store layers' weights and tables in blocks.

    Args:
        graph: the graph.
        plans: of its weights.
        measured: has what rounds weights whose inputs were measured.
        bits: of a layer's integers, 4 or 2.
        table_bits: of those of a table that is no layer's weight.
    """
    edit, index = Rewriting(graph, plans), GraphIndex(graph)
    ranks = _ranks(graph)
    for weight in matrices(graph, index):
        plan, readers = plans[weight.name], readers_of(index, weight)
        if readers is None or not _fits(weight, readers, ranks):
            dequantize(edit, weight, plan, opset_of(graph.model))
        else:
            width = bits if any(isinstance(reader, Layer) for reader in readers) else table_bits
            inputs_first = not (isinstance(readers[0], Table) or readers[0].outputs_first)
            found = by_block(weight, plan, inputs_first=inputs_first, bits=width, rounding=measured.rounding)
            _pack(edit, weight, *found, readers, ranks, width)
    lowered = edit.lowered()
    if bits == 2:
        # Nothing else in the model says which releases multiply 2 bits; this makes older ones, and seeds, say so.
        lowered.graph.model.ir_version = max(lowered.graph.model.ir_version, _IR_OF_2_BITS)
    return lowered


def _fits(weight: Weight, readers: Sequence[Reader], ranks: dict[str, int]) -> bool:
    """Return whether a weight can be stored in blocks of each layer's inputs, or of each row of a table."""
    orders = {isinstance(reader, Table) or reader.outputs_first for reader in readers}
    known = all(reader.node.input[1] in ranks for reader in readers if isinstance(reader, Table))
    return len(orders) == 1 and known and weight.shape[1 if orders == {True} else 0] % BLOCKS[-1] == 0


def _pack(
    edit: Rewriting, weight: Weight, grid: Grid, size: int, readers: Sequence[Reader], ranks: dict[str, int], bits: int
) -> None:
    outputs, blocks, _ = grid.integers.shape
    inputs, uint8 = blocks * size, BY_NAME["uint8"]
    shape = (outputs, blocks, size * bits // 8)
    name = edit.names.take(f"{weight.name}_int{bits}")
    matrix = QuantizedMatrix(grid.integers.reshape(folded(outputs, inputs)), 1.0)
    data = stored(grid.integers, bits, uint8.name).reshape(shape)
    edit.replace_weight(weight.name, Weight(name, uint8, shape, data), IntegersPlan(matrix, bits, grid.step))
    # One tensor for layers and tables: a reshaped one would be another copy in the session.
    scales = edit.constant(f"{weight.name}_scale", grid.scales.reshape(outputs, blocks))
    zeros = "" if grid.zeros is None else edit.constant(f"{weight.name}_zero", _packed_zeros(grid.zeros, bits))
    attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": size, "accuracy_level": _BYTES}
    for reader in readers:
        if isinstance(reader, Layer):
            read = [reader.node.input[0], name, scales, *([zeros] if zeros else [])]
            replace_layer(edit, reader.node, "MatMulNBits", read, **attributes)
        else:
            _select(edit, reader, (name, scales, zeros), blocks, bits, ranks[reader.node.input[1]])


def _packed_zeros(zeros: I32, bits: int) -> npt.NDArray[np.uint8]:
    """Return the zero points of each output's blocks, of which the last byte may hold fewer."""
    per = 8 // bits
    fields = (zeros[..., 0] + (1 << (bits - 1))).astype(np.uint8)
    fields = np.pad(fields, ((0, 0), (0, -fields.shape[1] % per))).reshape(len(fields), -1, per)
    packed: npt.NDArray[np.uint8] = (fields << (np.arange(per) * bits).astype(np.uint8)).sum(axis=2, dtype=np.uint8)
    return packed


def _select(edit: Rewriting, table: Table, names: tuple[str, str, str], blocks: int, bits: int, rank: int) -> None:
    """Select rows of packed integers, unpack them, and multiply them by their blocks' steps."""
    (name, scales, zeros), node, indices = names, table.node, table.node.input[1]
    out = node.output[0]

    def fresh(what: str) -> str:
        return edit.names.take(f"{out}_{what}")

    nodes: list[onnx.NodeProto] = []

    def unpacked(source: str, axes: int) -> str:
        """Select rows of fields, and return their values along an axis more."""
        alone = edit.constant("field_alone", np.array([*[0] * axes, 1]))
        rows, rest = fresh("packed"), fresh("floats")
        nodes.append(make_node("Gather", [source, indices], [rows], axis=0))
        nodes.append(make_node("Cast", [rows], [rest], to=onnx.TensorProto.FLOAT))
        # Divisions by powers of two are exact, and floats have these operators in all opsets.
        # The first field is lowest.
        base, fields = edit.constant("field", np.array(2.0**-bits, np.float32)), []
        back = edit.constant("field_values", np.array(2.0**bits, np.float32))
        for place in range(8 // bits):
            field = rest
            if place < 8 // bits - 1:
                shifted, upper, moved, field = fresh("shifted"), fresh("upper"), fresh("moved"), fresh("field")
                nodes.extend(
                    [
                        make_node("Mul", [rest, base], [shifted]),
                        make_node("Floor", [shifted], [upper]),
                        make_node("Mul", [upper, back], [moved]),
                        make_node("Sub", [rest, moved], [field]),
                    ]
                )
                rest = upper
            fields.append(fresh("last"))
            nodes.append(make_node("Reshape", [field, alone], [fields[-1]]))
        joined = fresh("fields")
        nodes.append(make_node("Concat", fields, [joined], axis=axes))
        return joined

    joined, centred, scaled = unpacked(name, rank + 2), fresh("centred"), fresh("scaled")
    selected, steps = fresh("scales"), fresh("steps")
    by_block = edit.constant("by_block", np.array([*[0] * rank, blocks, 1, 1]))
    # The axes of the indices, then all of a row.
    whole = edit.constant("row", np.array([*[0] * rank, -1]))
    if zeros:
        flat, own, zero = fresh("row"), fresh("own"), fresh("zero")
        ends = [edit.constant(f"first_{each}", np.array([each])) for each in (0, blocks)]
        nodes += [
            make_node("Reshape", [unpacked(zeros, rank + 1), whole], [flat]),
            # A row's last byte may hold fewer.
            make_node("Slice", [flat, *ends, edit.constant("last_axis", np.array([rank]))], [own]),
            make_node("Reshape", [own, by_block], [zero]),
        ]
    else:
        zero = edit.constant("half", np.array(float(1 << (bits - 1)), np.float32))
    nodes += [
        make_node("Sub", [joined, zero], [centred]),
        make_node("Gather", [scales, indices], [selected], axis=0),
        make_node("Reshape", [selected, by_block], [steps]),
        make_node("Mul", [centred, steps], [scaled]),
        make_node("Reshape", [scaled, whole], [out]),
    ]
    edit.replace_node(node, *nodes)


def _ranks(graph: Graph) -> dict[str, int]:
    """Return the number of axes of each value whose shape can be inferred."""
    typed = with_types(weights_as_inputs(graph)).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in [*typed.value_info, *typed.input, *typed.output]
        if value.type.tensor_type.HasField("shape")
    } | {tensor.name: len(tensor.dims) for tensor in typed.initializer}
