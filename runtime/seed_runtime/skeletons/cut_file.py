"""A file of which ranges were left out: what TFLite skeletons are (SPEC.md, "TFLite skeleton").

A range is the elements of a flatbuffer's vector of bytes, so that the number in front of it is its size. What was kept
is read by its place in the whole file; a read that touches a range is refused, so that nothing which a checker looks at
can be changed by the weights.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

import numpy as np

from seed_runtime.errors import LimitError
from seed_runtime.limits import TENSORS_MAX
from seed_runtime.skeletons.info import refuse

FILE_MAX: Final = (1 << 31) - 1
"""Largest whole file [B]: the offsets of a flatbuffer reach no further."""
_COUNT_BYTES: Final = 4
_RECORD_BYTES: Final = 6
"""Size of what is stated of a range [B]: four for the gap before it, two for the number of its hole."""
_SIZE_BYTES: Final = 4
"""Size of the number in front of a range [B]."""


class Range(NamedTuple):
    """A range that was left out: its place in the whole file and its size [B]."""

    offset: int
    size: int


def front_bytes(ranges: int) -> int:
    """Return the bytes of a skeleton in front of those that were kept."""
    return _COUNT_BYTES + _RECORD_BYTES * ranges


class CutFile:
    """The whole file, as far as it was kept; no byte of it is copied.

    Attributes:
        size: of the whole file [B].
        ranges: what was left out, in the order of the holes.
        kept: pieces that were kept, as places in the whole file and bytes, in the order of the file.
    """

    def __init__(self, data: memoryview) -> None:
        """Read a skeleton.

        Args:
            data: the unpacked part.

        Raises:
            FormatError: it is none.
        """
        self._begin(data)
        count = int.from_bytes(data[:_COUNT_BYTES], "little")
        if count > TENSORS_MAX:
            raise LimitError("skeleton: ranges", count, TENSORS_MAX)
        if len(data) < front_bytes(count):
            refuse("it ends within its table of ranges")
        gaps = np.frombuffer(data, "<u4", count, _COUNT_BYTES).tolist()
        numbers = np.frombuffer(data, "<u2", count, _COUNT_BYTES + 4 * count)
        if not np.array_equal(np.sort(numbers), np.arange(count)):
            refuse("its table of ranges doesn't name each hole once")
        self._cut(data[front_bytes(count) :], gaps, numbers.tolist())

    @classmethod
    def whole(cls, data: memoryview) -> CutFile:
        """Return a file of which nothing was left out."""
        file = cls.__new__(cls)
        file._begin(data)
        file._cut(data, [], [])
        return file

    def _begin(self, data: memoryview) -> None:
        self.size = 0
        self.ranges: list[Range] = []
        self.kept: list[tuple[int, memoryview]] = []

    def _cut(self, data: memoryview, gaps: list[int], numbers: list[int]) -> None:
        position, by_number = 0, dict[int, Range]()
        for gap, number in zip(gaps, numbers, strict=True):
            piece = data[position : position + gap]
            if not _SIZE_BYTES <= gap == len(piece):
                refuse("its ranges have no size in front of them, or reach past its end")
            self.kept.append((self.size, piece))
            position, self.size = position + gap, self.size + gap
            size = int.from_bytes(piece[-_SIZE_BYTES:], "little")
            if not size:
                refuse(f"its range for hole {number} is empty")
            by_number[number] = Range(self.size, size)
            self.size += size
            self._check_size()
        self.kept.append((self.size, data[position:]))
        self.size += len(data) - position
        self._check_size()
        self.ranges = [by_number[number] for number in range(len(numbers))]
        self._starts = [start for start, _ in self.kept]

    def _check_size(self) -> None:
        if self.size > FILE_MAX:
            raise LimitError("skeleton: size of the model", self.size, FILE_MAX)

    def read(self, offset: int, size: int, what: str) -> memoryview:
        """Return bytes of the whole file that were kept.

        Raises:
            FormatError: some of them weren't, or are past the end.
        """
        if offset < 0:
            refuse(f"{what} begins before the file")
        start, piece = self.kept[bisect_right(self._starts, offset) - 1]
        first = offset - start
        if first + size > len(piece):
            refuse(f"{what} reaches past the end, or into a weight, at offset {offset:,}")
        return piece[first : first + size]
