"""Operators of ONNX Runtime's own domain that converters write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seed_exporter.gradients.registry import Call, rule
from seed_exporter.gradients.rules.activations import gelu_slope, swish_slope, tanh_gelu_slope
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
