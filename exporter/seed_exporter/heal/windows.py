"""Windows that convolutions and pooling slide over an image: strides, dilations and padding, as ONNX states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from seed_exporter.graph.padding import SAME, same_pads
from seed_exporter.heal.registry import Call


@dataclass(frozen=True)
class Window:
    """A window along the spatial axes of an image.

    Attributes:
        kernel: its sizes.
        strides: its strides.
        dilations: distances between its elements.
        before: elements of padding before each axis.
        after: elements of padding behind each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """Elements from the first one of the window to its last one."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def is_symmetric(self) -> bool:
        """Return whether both sides of each axis are padded alike, as torch can itself."""
        return self.before == self.after

    def pad(self, image: Tensor, value: float = 0.0) -> Tensor:
        """Return the image with its padding."""
        return padded(image, self.before, self.after, value)


def window_of(call: Call, image: Tensor, kernel: Sequence[int]) -> Window:
    """Return the window that a node's attributes state for an image."""
    rank = len(kernel)
    strides = tuple(call.attribute("strides", [1] * rank))
    dilations = tuple(call.attribute("dilations", [1] * rank))
    auto = call.attribute("auto_pad", "NOTSET")
    if auto in SAME:
        extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        before, after = same_pads(image.shape[2:], extents, strides, auto)
    elif auto == "VALID":
        before = after = (0,) * rank
    else:
        pads = call.attribute("pads", [0] * 2 * rank)
        before, after = tuple(pads[:rank]), tuple(pads[rank:])
    return Window(tuple(kernel), strides, dilations, before, after)


def padded(image: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last axes of an image, or cut it where a number is negative."""
    pads = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    return functional.pad(image, pads, value=value) if any(pads) else image
