"""What a convolution of a TFLite model multiplies its weights by: channels are the last axis there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from seed_exporter.graph.padding import SAME, same_pads
from seed_exporter.graph.tflite_file import CONVOLUTION, DEPTHWISE
from seed_runtime.backends import Feeds


@dataclass(frozen=True)
class LastAxisPatches:
    """The patches of an input `(batch, height, width, channels)`, in the order of the weights' axes."""

    value: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    auto_pad: str
    groups: int
    """Of a convolution; one a channel of the result where each channel is multiplied alone."""
    is_depthwise: bool

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return (self.value,)

    def vectors(self, values: Feeds, choose: Callable[[int], npt.NDArray[np.intp]]) -> npt.NDArray[np.float32]:
        """Return the chosen vectors of one run, `(groups, positions, inputs)`."""
        array = values[self.value]
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]
        if self.auto_pad in SAME:
            before, after = same_pads(array.shape[1:3], spans, self.strides, self.auto_pad)
            sides = list(zip(before, after, strict=True))
            array = np.pad(array, [(0, 0), *sides, (0, 0)]) if any(map(any, sides)) else array
        channels = array.shape[3]
        if any(size < span for size, span in zip(array.shape[1:3], spans, strict=True)):
            return np.zeros((self.groups, 0, self._inputs(channels)), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(array, spans, (1, 2))
        (down, right), (below, beside) = self.strides, self.dilations
        # (batch, rows, columns, channels, kernel's rows, kernel's columns)
        windows = windows[:, ::down, ::right, :, ::below, ::beside]
        places = windows.shape[:3]
        patches = windows[np.unravel_index(choose(prod(places)), places)].astype(np.float32)
        if self.is_depthwise:
            alone = patches.reshape(len(patches), channels, -1).transpose(1, 0, 2)
            return np.repeat(alone, self.groups // channels, axis=0)
        grouped = patches.reshape(len(patches), self.groups, channels // self.groups, *self.kernel)
        return grouped.transpose(1, 0, 3, 4, 2).reshape(self.groups, len(patches), -1)

    def _inputs(self, channels: int) -> int:
        return prod(self.kernel) * (1 if self.is_depthwise else channels // self.groups)


def last_axis_source(
    node: onnx.NodeProto, shape: tuple[int, ...], attributes: Mapping[str, Any]
) -> LastAxisPatches | None:
    """Return the inputs of a convolution's weights of this shape; None where its options aren't known."""
    if node.op_type not in (CONVOLUTION, DEPTHWISE) or "strides" not in attributes or len(shape) != 4:
        return None
    is_depthwise = node.op_type == DEPTHWISE
    groups = int(attributes["group"])
    if is_depthwise and shape[3] % groups:
        return None
    return LastAxisPatches(
        node.input[0],
        (shape[1], shape[2]),
        tuple(attributes["strides"]),
        tuple(attributes["dilations"]),
        bytes(attributes["auto_pad"]).decode(),
        shape[3] if is_depthwise else groups,
        is_depthwise,
    )
