"""MobileNetV2.

Source: Sandler et al. 2018, table 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.architectures import MOBILENET_V2


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Module:
    """Return a convolution without bias, its batch norm, and ReLU6 unless told otherwise."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if act else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        widen = [convolution(inputs, inner, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen, convolution(inner, inner, 3, stride, inner), convolution(inner, outputs, 1, act=False)
        )  # fmt: skip
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """Images `(n, 3, height, width)` to logits `(n, classes)`."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(4, round(channels * width))

        inputs, last = wide(32), wide(1280)
        layers: list[nn.Module] = [convolution(3, inputs, 3, 2)]
        for expansion, channels, count, stride in MOBILENET_V2:
            for index in range(count):
                layers.append(InvertedResidual(inputs, wide(channels), expansion, stride if index == 0 else 1))
                inputs = wide(channels)
        self.layers = nn.Sequential(*layers, convolution(inputs, last, 1))
        self.head = nn.Linear(last, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(image).mean((2, 3)))
        return logits
