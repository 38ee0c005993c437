"""Pooling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from seed_exporter.heal.registry import Call, operator
from seed_exporter.heal.windows import Window, padded, window_of


@operator("GlobalAveragePool")
def _global_average(call: Call) -> Tensor:
    return call.x.mean(tuple(range(2, call.x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max(call: Call) -> Tensor:
    return call.x.amax(tuple(range(2, call.x.dim())), keepdim=True)


@operator("GlobalLpPool")
def _global_lp(call: Call) -> Tensor:
    power = call.attribute("p", 2)
    return call.x.abs().pow(power).sum(tuple(range(2, call.x.dim())), keepdim=True).pow(1 / power)


@operator("LpPool")
def _lp_pool(call: Call) -> Tensor:
    window, power = window_of(call, call.x, call.attribute("kernel_shape")), call.attribute("p", 2)
    image = padded(window.pad(call.x.abs().pow(power)), [0] * len(window.kernel), _rest(call, window))
    channels = image.shape[1]
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[len(window.kernel) - 1]
    ones = image.new_ones(channels, 1, *window.kernel)
    return run(image, ones, None, window.strides, 0, window.dilations, channels).pow(1 / power)


@operator("MaxPool")
def _max_pool(call: Call) -> Tensor:
    window = window_of(call, call.x, call.attribute("kernel_shape"))
    image = padded(window.pad(call.x, -torch.inf), [0] * len(window.kernel), _rest(call, window), -torch.inf)
    run = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(window.kernel) - 1]
    return run(image, window.kernel, window.strides, 0, window.dilations)


@operator("AveragePool")
def _average_pool(call: Call) -> Tensor:
    window = window_of(call, call.x, call.attribute("kernel_shape"))
    if any(dilation != 1 for dilation in window.dilations):
        call.refuse("dilations")
    none, rest = [0] * len(window.kernel), _rest(call, window)
    run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(window.kernel) - 1]
    image = padded(window.pad(call.x), none, rest)
    average = run(image, window.kernel, window.strides)
    counted = torch.ones_like(call.x[:1, :1])
    counted = padded(window.pad(counted, float(call.attribute("count_include_pad", 0))), none, rest)
    share = run(counted, window.kernel, window.strides)
    return average / share


def _rest(call: Call, window: Window) -> list[int]:
    """Return how far the last windows reach beyond the padded image where sizes are rounded up."""
    rest = [0] * len(window.kernel)
    if not call.attribute("ceil_mode", 0):
        return rest
    for axis, size in enumerate(call.x.shape[2:]):
        whole, stride = size + window.before[axis] + window.after[axis], window.strides[axis]
        count = -(-(whole - window.extents[axis]) // stride) + 1
        if (count - 1) * stride >= size + window.before[axis]:
            count -= 1  # a window must begin within the image or the padding before it
        rest[axis] = max(0, (count - 1) * stride + window.extents[axis] - whole)
    return rest
