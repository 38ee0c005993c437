"""Padding of convolutions and pooling that depends on the image: ONNX's auto_pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SAME: Final = ("SAME_UPPER", "SAME_LOWER")
"""Words of auto_pad for as many places as strides fit into the image."""


def same_pads(
    sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], auto: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Compute the padding before and after each axis of an image.

    Args:
        sizes: of the image's axes.
        extents: elements from the first one of the window to its last one.
        strides: of the window.
        auto: one of SAME.
    """
    axes = zip(sizes, extents, strides, strict=True)
    return split([max((-(-size // stride) - 1) * stride + extent - size, 0) for size, extent, stride in axes], auto)


def split(totals: Sequence[int], auto: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide paddings between both sides: an odd element goes behind in SAME_UPPER, before in SAME_LOWER."""
    less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (less, more) if auto == "SAME_UPPER" else (more, less)
