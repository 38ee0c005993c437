"""Channels of a graph's values: which can only be removed together, and which can't be removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Channels = npt.NDArray[np.intp]
"""Numbers of the channels along one axis of a value, in its order; a channel may stand in many axes."""
Mask = npt.NDArray[np.bool_]

CONVOLVED: Final = 4
"""What the number of channels that a convolution reads stays a multiple of, as far as there are as many.

ONNX Runtime's blocked convolutions take no other: ResNet-50 with four fifths of its channels dead, cut to any number,
was 3.4 times as fast as before, and 5.5 times cut to multiples of 4 (4.3 of 16; one core with AVX-512).
"""
POOLED: Final = 16
"""The same for pooling, which works on whole blocks: 16 channels with AVX-512, 8 with AVX2.

Others are reordered before and after the pool behind ResNet-50's stem, which took 7 % of that model's time.
"""


class ChannelTable:
    """Numbers of channels, which of them are tied to each other, and which must stay."""

    def __init__(self) -> None:
        self._count = 0
        self._ties: list[tuple[Channels, Channels]] = []
        self._blocked: list[Channels] = []
        self._images: list[tuple[Channels, int]] = []

    def take(self, count: int) -> Channels:
        """Return new channels, tied to none."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def tie(self, one: Channels, other: Channels) -> None:
        """Let each channel of `one` be removed only with that of `other` at its place."""
        self._ties.append((one.reshape(-1), other.reshape(-1)))

    def block(self, channels: Channels) -> None:
        """Let these channels, and those that are tied to them, stay."""
        self._blocked.append(channels.reshape(-1))

    def keep_multiple(self, channels: Channels, multiple: int) -> None:
        """Let a multiple of some number of the channels along an axis stay, dead ones included."""
        self._images.append((channels, multiple))

    def removable(self, axes: Sequence[Channels]) -> Mask:
        """Return for each channel whether it can be removed, so that at least one stays along each of `axes`."""
        groups = self._tied()
        stays = np.zeros(self._count, bool)
        for channels in self._blocked:
            stays[groups[channels]] = True
        wanted = [(groups[channels], 1) for channels in axes]
        wanted += [(groups[channels], multiple) for channels, multiple in self._images]
        changed = True
        while changed:
            changed = False
            for members, multiple in wanted:
                left = int(stays[members].sum())
                least = min(max(-(-left // multiple), 1) * multiple, members.size)
                while left < least:
                    stays[members[~stays[members]][0]] = changed = True
                    left = int(stays[members].sum())
        return ~stays[groups]

    def _tied(self) -> Channels:
        """Return for each channel the least of those that it is tied to, directly or not."""
        least = np.arange(self._count)
        if not self._ties:
            return least
        one, other = (np.concatenate(each) for each in zip(*self._ties, strict=True))
        while True:
            before = least.copy()
            lower = np.minimum(least[one], least[other])
            for side in (one, other):
                np.minimum.at(least, least[side], lower)
            # Pointer jumping: paths become half as long.
            least = least[least]
            if np.array_equal(before, least):
                return least
