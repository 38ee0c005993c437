"""Operators of ONNX Runtime's own domain that converters write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import TensorProto

from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.activations import gelu_slope, swish_slope, tanh_gelu_slope
from seed_exporter.gradients.rules.matrices import transposed
from seed_exporter.gradients.rules.normalizations import centred, centred_gradient, scaled, scaled_gradient

DOMAIN: Final = "com.microsoft"


@rule("Gelu", domain=DOMAIN)
def _gelu(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", c.gradient, gelu_slope(c, c.x))]


@rule("QuickGelu", domain=DOMAIN)
def _quick_gelu(c: Call) -> Sequence[str | None]:
    return [c.emit("Mul", c.gradient, swish_slope(c, c.x, c.attribute("alpha", 1.702)))]


@rule("BiasGelu", "FastGelu", domain=DOMAIN)
def _bias_gelu(c: Call) -> Sequence[str | None]:
    x = c.emit("Add", c.x, c.input(1)) if c.input(1) else c.x
    slope = tanh_gelu_slope if c.node.op_type == "FastGelu" else gelu_slope
    gradient = c.emit("Mul", c.gradient, slope(c, x))
    return [gradient, c.reduced(gradient, 1)]


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=DOMAIN)
def _skip_layer_normalization(c: Call) -> Sequence[str | None]:
    """Normalize the sum of two inputs and a bias; a fourth output is that sum."""
    first, *others = c.gradients
    if first is None or any(others[:2]):
        c.refuse("a gradient of the mean or the deviation alone")
    e, simple = c.emit, "Simplified" in c.node.op_type
    bias_at = 3 if simple else 4
    total = e("Add", c.x, c.input(1))
    if c.input(bias_at):
        total = e("Add", total, c.input(bias_at))
    axes, epsilon = e.integers([-1]), c.attribute("epsilon", 1e-12)
    normal, factor = (scaled if simple else centred)(c, total, axes, epsilon)
    back = (scaled_gradient if simple else centred_gradient)(c, e("Mul", first, c.input(2)), normal, factor, axes)
    if len(others) > 2 and others[2]:
        back = e("Add", back, others[2])
    found: list[str | None] = [back, c.reduced(back, 1), c.reduced(e("Mul", first, normal), 2), None, None]
    if not simple:
        found[3] = c.reduced(first, 3)
    found[bias_at] = c.reduced(back, bias_at)
    return found


@rule("FusedMatMul", domain=DOMAIN)
def _fused_matmul(c: Call) -> Sequence[str | None]:
    """Multiply matrices that may be transposed, and scale their product."""
    e, (a, b), batch = c.emit, c.node.input[:2], c.emit.shape(c.y)
    a_shape, b_shape = c.shape(a), c.shape(b)
    if min(len(a_shape), len(b_shape)) < 2 or c.attribute("transBatchA", 0) or c.attribute("transBatchB", 0):
        c.refuse("vectors or transposed batches")
    swaps_a, swaps_b = bool(c.attribute("transA", 0)), bool(c.attribute("transB", 0))
    gradient, rank = c.gradient, max(len(a_shape), len(b_shape))
    if (alpha := c.attribute("alpha", 1.0)) != 1:
        gradient = e("Mul", gradient, c.scalar(alpha))

    def operand(back: str, swaps: bool, name: str) -> str:
        full = None if batch is None else (*batch[:-2], *c.shape(name)[-2:])
        return e.reduce_to(transposed(c, back, rank) if swaps else back, full, name)

    found: list[str | None] = [None, None]
    if 0 in c.wanted:
        right = b if swaps_b else transposed(c, b, len(b_shape))
        found[0] = operand(e("MatMul", gradient, right), swaps_a, a)
    if 1 in c.wanted:
        left = a if swaps_a else transposed(c, a, len(a_shape))
        found[1] = operand(e("MatMul", left, gradient), swaps_b, b)
    return found


@rule("MatMulNBits", domain=DOMAIN)
def _matmul_nbits(c: Call) -> Sequence[str | None]:
    """Multiply by a packed matrix, of which no more is made than its integers and its floats."""
    e, gradient = c.emit, c.gradient
    rows, columns, block = (int(c.attribute(name)) for name in ("K", "N", "block_size"))
    blocks, order = -(-rows // block), c.input(4)
    centred = _centred(c, columns, blocks)
    scales = e("Reshape", c.input(2), e.integers([columns, blocks]))
    if order:
        # It may be filled up to whole blocks.
        floats = e("Mul", centred, e("Gather", scales, _first(c, order, rows, 0), axis=1))
    else:
        floats = e("Mul", centred, e("Unsqueeze", scales, e.integers([2])))
        floats = _first(c, e("Reshape", floats, e.integers([columns, blocks * block])), rows, 1)
    found: list[str | None] = [None] * 6
    found[0] = e("MatMul", gradient, floats)
    if 2 in c.wanted:
        if order:
            c.refuse("scales with an order of groups")
        flat = [e("Flatten", each, axis=-1) for each in (gradient, c.x)]
        each = e("Pad", e("Gemm", *flat, transA=1), e.integers([0, 0, 0, blocks * block - rows]))
        each = e("Mul", e("Reshape", each, e.integers([columns, blocks, block])), centred)
        found[2] = e("Reshape", e("ReduceSum", each, e.integers([2]), keepdims=0), e.shape_vector(c.input(2)))
    # Nothing says the shape of the product where onnx doesn't know the operator; its bias is a vector.
    if 5 in c.wanted:
        found[5] = e("ReduceSum", e("Flatten", gradient, axis=-1), e.integers([0]), keepdims=0)
    return found


def _centred(c: Call, columns: int, blocks: int) -> str:
    """Write the integers of MatMulNBits without their zero points, `(N, blocks, block)`; `(N, K)` in an order."""
    e, order = c.emit, c.input(4)
    integers = e("Cast", _unpacked(c, c.input(1), columns), to=c.code)
    if order:
        integers = _first(c, integers, int(c.attribute("K")), 1)
    else:
        integers = e("Reshape", integers, e.integers([columns, blocks, -1]))
    zeros = c.input(3)
    if not zeros:
        return e("Sub", integers, c.scalar(2.0 ** (int(c.attribute("bits", 4)) - 1)))
    if order:
        # ONNX Runtime 1.32 takes no notice of the zero points then.
        c.refuse("zero points with an order of groups")
    if e.code(zeros) == TensorProto.UINT8:
        zeros = e("Cast", _first(c, _unpacked(c, zeros, columns), blocks, 1), to=c.code)
    else:
        zeros = e("Reshape", zeros, e.integers([columns, blocks]))
    return e("Sub", integers, e("Unsqueeze", zeros, e.integers([2])))


def _unpacked(c: Call, packed: str, columns: int) -> str:
    """Write the integers in bytes as a matrix of so many rows; the first one of a byte is in its low bits."""
    e, bits = c.emit, int(c.attribute("bits", 4))
    if bits not in (2, 4, 8):
        c.refuse(f"integers of {bits} bits")
    whole = e("Reshape", packed, e.integers([columns, -1]))
    if bits == 8:
        return whole
    parts = []
    for low in range(0, 8, bits):
        part = e("BitShift", whole, e.constant(np.array([low], np.uint8)), direction="RIGHT") if low else whole
        part = e("Mod", part, e.constant(np.array([1 << bits], np.uint8))) if low + bits < 8 else part
        parts.append(e("Unsqueeze", part, e.integers([-1])))
    return e("Reshape", e("Concat", *parts, axis=-1), e.integers([columns, -1]))


def _first(c: Call, values: str, count: int, axis: int) -> str:
    e = c.emit
    return e("Slice", values, e.integers([0]), e.integers([count]), e.integers([axis]))
