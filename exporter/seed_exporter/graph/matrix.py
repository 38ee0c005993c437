"""Weights as matrices: rows and columns for coding, and floats of any width as float32."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.graph import tflite_file
from seed_exporter.graph.model import Use, Weight
from seed_runtime.codecs.encode.matrix import folded
from seed_runtime.limits import SIDE_MAX

_ROWS_BEFORE_LAST: Final = frozenset({"LSTM", "GRU", "RNN"})
"""Operators whose weights end in the input axis, with output channels on all axes before: [directions, 4h, in]."""


def output_axis(weight: Weight) -> int | None:
    """Return the axis of output channels or table entries, None where there is no natural one."""
    axes = {_output_axis_of_use(use, len(weight.shape)) for use in weight.uses} - {None}
    if not axes or len(weight.shape) < 2:
        return None
    # A tied embedding is a table and, transposed, a matrix: its entries are the channels of both.
    return axes.pop() if len(axes) == 1 else None


def matrix_view(weight: Weight) -> tuple[int, int]:
    """Return rows and columns as the weight's uses suggest, without moving data: `data.reshape(rows, columns)`.

    Rows are output channels or table entries where these come first in memory; the weights of a MatMul stay [in, out]
    as they lie, and batches of them stack their rows.
    """
    shape, count = weight.shape, weight.count
    long_axes = [size for size in shape if size != 1]
    if len(long_axes) <= 1 or not count:
        return 1, count
    axis = output_axis(weight)
    if axis is not None and axis % len(shape) == len(shape) - 1:
        return count // shape[-1], shape[-1]
    if any(use.op in _ROWS_BEFORE_LAST for use in weight.uses):
        return count // shape[-1], shape[-1]
    # Leading axes of length 1 carry nothing: [1, 4h, in] has 4h rows.
    first = long_axes[0]
    return first, count // first


def coded_view(weight: Weight) -> tuple[int, int]:
    """Return rows and columns for coding: `matrix_view`, folded where a side is too long for a stream's side arrays.

    4-bit elements are coded as the bytes that hold two of them.
    """
    rows, cols = matrix_view(weight)
    if weight.dtype.bits < 8:
        rows = rows if weight.size % rows == 0 else 1
        cols = weight.size // rows
    return folded(rows, cols)


def kernel_of(weight: Weight) -> tuple[int, int] | None:
    """Return how many columns of `coded_view` are the taps of one channel's kernel, and the kernel's width.

    None for weights that are no kernels of convolutions, and where a kernel has one tap.
    """
    shape = weight.shape
    if (
        not any("Conv" in use.op for use in weight.uses)
        or len(shape) < 3
        or coded_view(weight) != (shape[0], weight.count // shape[0])
    ):
        return None
    taps = math.prod(shape[2:])
    return (taps, shape[-1]) if taps > 1 else None


def fits_a_stream(weight: Weight) -> bool:
    """Return whether symbols of this weight can be coded: a prime length of millions can't be folded."""
    # A matrix that can't be folded may have all of a stream's side arrays: it has a stream of its own.
    return sum(coded_view(weight)) <= SIDE_MAX


def as_float32(weight: Weight) -> npt.NDArray[np.float32]:
    """Return the values as `coded_view` lays them out; a view where the type is float32 already."""
    data = weight.data.reshape(coded_view(weight))
    if weight.dtype.name == "bfloat16":
        return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return data.astype(np.float32, copy=False)


def _output_axis_of_use(use: Use, rank: int) -> int | None:
    """Return the axis that this node makes its output channels or rows from, None where it has none."""
    op, index, attributes = use.op, use.index, use.attributes
    if op in ("Conv", "ConvInteger", "QLinearConv") and index in (1, 3):
        return 0
    if op == "ConvTranspose" and index == 1:
        return 1  # [in, out / group, ...]
    if op in (tflite_file.CONVOLUTION, tflite_file.TRANSPOSED) and index == 1:
        return 0  # [out, height, width, in]
    if op == tflite_file.DEPTHWISE and index == 1:
        return rank - 1  # [1, height, width, out]
    if op == tflite_file.PRODUCT:
        return rank - 2 if (index == 1) == bool(attributes.get("transposed", 0)) else rank - 1
    if op == "Gemm" and index in (0, 1):
        outputs_last = (index == 1) != bool(attributes.get("transB" if index == 1 else "transA", 0))
        return rank - 1 if outputs_last else 0
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
        return 0  # a tied embedding on its way into a MatMul (dedup.py)
    if op == "DequantizeLinear" and index == 0:
        return int(attributes.get("axis", 1)) % rank if rank > 1 else None
    return None
