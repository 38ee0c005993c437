"""Normalizations, with the statistics that the model holds or the sample has."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from seed_exporter.heal.registry import Call, operator


def along(vector: Tensor, image: Tensor, axis: int = 1) -> Tensor:
    """Return a vector with axes of length 1 around it, so that it goes along one axis of an image."""
    return vector.reshape([-1 if each == axis % image.dim() else 1 for each in range(image.dim())])


@operator("BatchNormalization")
def _batch_norm(call: Call) -> Tensor:
    if call.attribute("training_mode", 0):
        call.refuse("batch statistics")
    scale, bias, mean, variance = (call.required(index) for index in (1, 2, 3, 4))
    # torch's own has no gradients of mean and variance.
    factor = scale * torch.rsqrt(variance + call.attribute("epsilon", 1e-5))
    return call.x * along(factor, call.x) + along(bias - mean * factor, call.x)


@operator("InstanceNormalization")
def _instance_norm(call: Call) -> Tensor:
    epsilon = call.attribute("epsilon", 1e-5)
    return functional.instance_norm(call.x, weight=call.required(1), bias=call.required(2), eps=epsilon)


@operator("GroupNormalization")
def _group_norm(call: Call) -> Tensor:
    groups, epsilon = call.attribute("num_groups"), call.attribute("epsilon", 1e-5)
    if call.opset < 21:
        call.refuse("scales of groups, as before opset 21")
    return functional.group_norm(call.x, groups, call.required(1), call.required(2), epsilon)


@operator("LayerNormalization")
def _layer_norm(call: Call) -> Tensor:
    shape = call.x.shape[call.attribute("axis", -1) % call.x.dim() :]
    bias = call.input(2)
    scale = call.required(1).expand(shape)
    bias = None if bias is None else bias.expand(shape)
    return functional.layer_norm(call.x, shape, scale, bias, call.attribute("epsilon", 1e-5))


@operator("SimplifiedLayerNormalization", "RMSNormalization")
def _rms_norm(call: Call) -> Tensor:
    axes = list(range(call.attribute("axis", -1) % call.x.dim(), call.x.dim()))
    epsilon = call.attribute("epsilon", 1e-5)
    return call.x * torch.rsqrt(call.x.square().mean(axes, keepdim=True) + epsilon) * call.required(1)


@operator("LpNormalization")
def _lp_norm(call: Call) -> Tensor:
    norm = call.x.norm(p=call.attribute("p", 2), dim=call.attribute("axis", -1), keepdim=True)
    return call.x / torch.where(norm == 0, 1.0, norm)


@operator("MeanVarianceNormalization")
def _mean_variance(call: Call) -> Tensor:
    axes = list(call.attribute("axes", [0, 2, 3]))
    centred = call.x - call.x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("LRN")
def _local_response(call: Call) -> Tensor:
    alpha, beta, bias = (
        call.attribute(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return functional.local_response_norm(call.x, call.attribute("size"), alpha, beta, bias)
