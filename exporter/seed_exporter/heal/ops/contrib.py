"""ONNX Runtime's own operators, which its optimizer and other exporters write."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from seed_exporter.heal.registry import MICROSOFT, Call, operator, unary

unary("Gelu", functional.gelu, domain=MICROSOFT)


@operator("BiasGelu", domain=MICROSOFT)
def _bias_gelu(call: Call) -> Tensor:
    return functional.gelu(call.x + call.required(1))


@operator("FastGelu", domain=MICROSOFT)
def _fast_gelu(call: Call) -> Tensor:
    bias = call.input(1)
    return functional.gelu(call.x if bias is None else call.x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def _quick_gelu(call: Call) -> Tensor:
    return call.x * torch.sigmoid(call.attribute("alpha", 1.702) * call.x)


@operator("FusedMatMul", domain=MICROSOFT)
def _fused_matmul(call: Call) -> Tensor:
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        call.refuse("transposed batches")
    left, right = call.required(0), call.required(1)
    left = left.mT if call.attribute("transA", 0) else left
    right = right.mT if call.attribute("transB", 0) else right
    return call.attribute("alpha", 1.0) * (left @ right)


@operator("SkipLayerNormalization", domain=MICROSOFT)
def _skip_layer_norm(call: Call) -> Tensor:
    bias = call.input(4)
    total = call.x + call.required(1) + (0 if bias is None else bias)
    return functional.layer_norm(
        total, total.shape[-1:], call.required(2), call.input(3), call.attribute("epsilon", 1e-12)
    )  # fmt: skip


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_rms_norm(call: Call) -> Tensor:
    bias = call.input(3)
    total = call.x + call.required(1) + (0 if bias is None else bias)
    square = total.square().mean(-1, keepdim=True)
    return total * torch.rsqrt(square + call.attribute("epsilon", 1e-12)) * call.required(2)
