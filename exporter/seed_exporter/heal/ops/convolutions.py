"""Convolutions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from seed_exporter.graph.padding import split
from seed_exporter.heal.registry import Call, operator
from seed_exporter.heal.windows import padded, window_of


@operator("Conv")
def _conv(call: Call) -> Tensor:
    image, kernel = call.required(0), call.required(1)
    window = window_of(call, image, kernel.shape[2:])
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[len(window.kernel) - 1]
    pads = window.before if window.is_symmetric else 0
    if not window.is_symmetric:
        image = window.pad(image)
    groups = call.attribute("group", 1)
    return run(image, kernel, call.input(2), window.strides, pads, window.dilations, groups)


@operator("ConvTranspose")
def _conv_transpose(call: Call) -> Tensor:
    image, kernel = call.required(0), call.required(1)
    window = window_of(call, image, kernel.shape[2:])
    added = call.attribute("output_padding", [0] * len(window.kernel))
    run = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[len(added) - 1]
    full = run(
        image, kernel, call.input(2), window.strides, 0, 0, call.attribute("group", 1), window.dilations
    )  # fmt: skip
    before, after = window.before, window.after
    auto = call.attribute("auto_pad", "NOTSET")
    wanted = call.attribute("output_shape")
    if wanted is None and auto.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(image.shape[2:], window.strides, strict=True)]
    if wanted is not None:
        sizes = zip(full.shape[2:], added, wanted, strict=True)
        before, after = split([size + more - want for size, more, want in sizes], auto)
    return padded(
        full, [-pad for pad in before], [more - pad for more, pad in zip(added, after, strict=True)]
    )  # fmt: skip
