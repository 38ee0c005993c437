"""Products of matrices: with a constant one, and of two values, as in attention."""

from __future__ import annotations

import numpy as np
import onnx

from seed_exporter.shrink.channels import Channels
from seed_exporter.shrink.cut import Cut
from seed_exporter.shrink.registry import F64, Call, rule
from seed_exporter.shrink.rules.elementwise import broadcast
from seed_exporter.shrink.rules.linear import Dense, vector_along


@rule("MatMul")
def _matmul(c: Call) -> None:
    ranks = c.rank(0), c.rank(1)
    if min(ranks) < 2:
        c.refuse()
    right = c.known(1)
    if ranks[1] == 2 and c.is_constant(1) and right is not None:
        _matmul_constant(c, right)
        return
    inner = c.tie(c.axis(0, -1), c.axis(1, -2))
    if inner is not None:
        c.block(inner, ~(_zeros(c.known(0), -1, inner.size) | _zeros(c.known(1), -2, inner.size)))
    c.give([*broadcast(c, range(2), skip=2), c.axis(0, -2), c.axis(1, -1)], _product(c))


@rule("Gemm")
def _gemm(c: Call) -> None:
    weights = c.known(1)
    if c.attribute("transA", 0) or weights is None or not c.is_constant(1) or c.rank(0) != 2:
        c.refuse()
    turned = c.attribute("transB", 0)
    alpha, beta = c.attribute("alpha", 1.0), c.attribute("beta", 1.0)
    count, size = weights.shape if turned else weights.shape[::-1]
    bias = _gemm_bias(c, count)
    foldable = beta == 1 and (not c.input(2) or (c.is_constant(2) and not np.isnan(bias).any()))
    constants = c.vector(0, 1, size)
    if not foldable:
        constants = np.where(constants == 0, constants, np.nan)
    matrix = weights if turned else weights.T
    dense = Dense(matrix != 0, matrix, bias * beta, constants * alpha)
    outputs, inputs = (c.axis(1, 0), c.axis(1, 1)) if turned else (c.axis(1, 1), c.axis(1, 0))
    inputs = c.tie(c.axis(0, 1), inputs)
    dense.block_needed(c, inputs)
    if c.input(2) and c.rank(2) and c.shape(c.input(2))[-1] != 1:
        outputs = c.tie(outputs, c.axis(2, -1))
    if inputs is not None and foldable:

        def fold(cut: Cut, node: onnx.NodeProto) -> None:
            offset = dense.offset(cut.removed(inputs))
            if offset.any():
                name = cut.constant(cut.along(dense.bias + offset, outputs).astype(weights.dtype))
                node.input[:] = [*node.input[:2], name]

        c.edit(fold)
    c.give([c.axis(0, 0), outputs], vector_along(dense.outputs(), 2, 1, weights.dtype))


def _gemm_bias(c: Call, count: int) -> F64:
    """Return the bias of each output of a Gemm, NaN where it isn't one number."""
    if not c.input(2):
        return np.zeros(count)
    if c.rank(2):
        return c.vector(2, -1, count)
    known = c.known(2)
    return np.full(count, np.nan if known is None else float(known))


def _matmul_constant(c: Call, right: np.ndarray) -> None:
    matrix = right.T
    dense = Dense(matrix != 0, matrix, np.zeros(len(matrix)), c.vector(0, -1, matrix.shape[1]))
    rank = c.rank(0)
    inputs, outputs = c.tie(c.axis(0, -1), c.axis(1, 0)), c.axis(1, 1)
    dense.block_needed(c, inputs)
    if inputs is not None:
        bias = _bias_behind(c, len(matrix))

        def fold(cut: Cut, node: onnx.NodeProto) -> None:
            offset = dense.offset(cut.removed(inputs))
            if not offset.any():
                return
            if bias is not None:
                position, index, values = bias
                name = cut.constant(cut.along(values + offset, outputs).astype(right.dtype))
                cut.nodes[position].input[index] = name
                return
            product, result = cut.fresh_name(), node.output[0]
            node.output[0] = product
            name = cut.constant(cut.along(offset, outputs).astype(right.dtype))
            cut.after.setdefault(c.position, []).append(onnx.helper.make_node("Add", [product, name], [result]))

        c.edit(fold)
    axes: list[Channels | None] = [c.axis(0, axis) for axis in range(rank - 1)]
    c.give([*axes, outputs], vector_along(dense.outputs(), rank, rank - 1, right.dtype))


def _bias_behind(c: Call, size: int) -> tuple[int, int, F64] | None:
    """Return position, input and values of a constant vector that only the next node adds; None without one."""
    following = c.only_consumer(c.node.output[0])
    if following is None or following[1].op_type != "Add" or following[1].domain:
        return None
    position, node = following
    index = 1 - list(node.input).index(c.node.output[0])
    values = c.constant(node.input[index])
    return None if values is None or values.shape != (size,) else (position, index, values.astype(np.float64))


def _zeros(known: np.ndarray | None, axis: int, size: int) -> np.ndarray:
    """Return for each place along an axis whether all elements there are known to be 0."""
    if known is None:
        return np.zeros(size, bool)
    rows = np.moveaxis(known, axis, 0).reshape(known.shape[axis], -1)
    return np.broadcast_to((rows == 0).all(axis=1), (size,))


def _product(c: Call) -> np.ndarray | None:
    """Multiply values of which one is the same along the axis that is summed over."""
    left, right = c.known(0), c.known(1)
    rank = max(c.rank(0), c.rank(1))
    if right is not None and right.shape[-2] == 1:
        producer = c.producer(c.input(0))
        # Rows of a softmax have the sum 1.
        averages = producer is not None and producer.op_type == "Softmax" and _is_last_axis(c, producer)
        known = right if averages else np.where(right == 0, right, np.nan)
        return known.reshape((1,) * (rank - known.ndim) + known.shape)
    if left is not None and left.shape[-1] == 1:
        known = np.where(left == 0, left, np.nan)
        return known.reshape((1,) * (rank - known.ndim) + known.shape)
    return None


def _is_last_axis(c: Call, softmax: onnx.NodeProto) -> bool:
    rank = c.rank(0)
    default = -1 if c.opset >= 13 else 1
    axis = next((each.i for each in softmax.attribute if each.name == "axis"), default)
    return axis % rank == rank - 1
