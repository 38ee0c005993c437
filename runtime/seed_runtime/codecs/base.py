"""The weights that a seed of differences builds on."""

from __future__ import annotations

from typing import Protocol

from seed_runtime.codecs.arrays import Values


class BaseWeights(Protocol):
    """The base model's weights, read window by window: no whole tensor needs to be in memory."""

    def read(self, hole: int, start: int, stop: int) -> Values:
        """Return elements of the base's tensor that stands for one hole.

        Args:
            hole: index among the holes that the reader of these weights was given.
            start: the first element, in C order.
            stop: behind the last element, at most the hole's count.

        Returns:
            `(stop - start,)`, of the hole's `dtype.storage`. Types of less than 8 bits come as bytes that hold two
            elements, from an even `start` on: `((stop - start + 1) // 2,)`. The next call may overwrite it.
        """
        ...
