"""Products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from seed_exporter.heal.registry import Call, binary, operator

binary("MatMul", torch.matmul)


@operator("Gemm")
def _gemm(call: Call) -> Tensor:
    left = call.required(0).T if call.attribute("transA", 0) else call.required(0)
    right = call.required(1).T if call.attribute("transB", 0) else call.required(1)
    alpha, beta, bias = call.attribute("alpha", 1.0), call.attribute("beta", 1.0), call.input(2)
    product = left @ right if alpha == 1 else alpha * (left @ right)
    if bias is None:
        return product
    return product + (bias if beta == 1 else beta * bias)


@operator("Einsum")
def _einsum(call: Call) -> Tensor:
    return torch.einsum(call.attribute("equation"), *call.given())
