"""Operators of ONNX Runtime's own domain that converters write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from onnx import helper

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
    """Multiply by a packed matrix: the operator makes its floats of unit vectors, and its integers of scales of 1."""
    e, gradient = c.emit, c.gradient
    rows, columns, block = (int(c.attribute(name)) for name in ("K", "N", "block_size"))
    zero = helper.make_tensor("", c.code, [1], [0])
    unit = e("EyeLike", e("ConstantOfShape", e.integers([rows, rows]), value=zero))
    kept = {"K": rows, "N": columns, "block_size": block, "bits": c.attribute("bits", 4)}

    def matrix(scales: str) -> str:
        return e("MatMulNBits", unit, c.input(1), scales, c.input(3), c.input(4), domain=DOMAIN, **kept)

    found: list[str | None] = [None] * 6
    found[0] = e("MatMul", gradient, e("Transpose", matrix(c.input(2)), perm=[1, 0]))
    if 2 in c.wanted:
        if c.input(4):
            c.refuse("scales with an order of groups")
        one = helper.make_tensor("", c.code, [1], [1])
        integers = matrix(e("ConstantOfShape", e.shape_vector(c.input(2)), value=one))
        flat = [e("Flatten", each, axis=-1) for each in (gradient, c.x)]
        each = e("Mul", e("Gemm", *flat, transA=1), e("Transpose", integers, perm=[1, 0]))
        blocks = -(-rows // block)
        each = e("Pad", each, e.integers([0, 0, 0, blocks * block - rows]))
        each = e("ReduceSum", e("Reshape", each, e.integers([columns, blocks, block])), e.integers([2]), keepdims=0)
        found[2] = e("Reshape", each, e.shape_vector(c.input(2)))
    # Nothing says the shape of the product where onnx doesn't know the operator; its bias is a vector.
    if 5 in c.wanted:
        found[5] = e("ReduceSum", e("Flatten", gradient, axis=-1), e.integers([0]), keepdims=0)
    return found
