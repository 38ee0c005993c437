"""Lays matrices out as cells, and lists the elements of their antidiagonals (SPEC.md, "Order" of codec 8).

Wave t has, of each matrix, the elements whose row and column have the sum t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import I64

TOGETHER: Final = 1 << 11
"""Elements whose places are found at once, unless one wave has more: most waves have less, and forty calls of NumPy
take longer than their elements."""


@dataclass(frozen=True)
class Extent:
    """The live rows and columns of a matrix: `taps` columns a channel, those of a row of a kernel `width` apart."""

    rows: int
    cols: int
    taps: int = 1
    width: int = 2

    @property
    def stride(self) -> int:
        """Number of cells of a row, zeros left of it counted."""
        return self.cols + self._margin

    @property
    def cells(self) -> int:
        """Number of cells, zeros above and left of the elements counted; 0 of a matrix without elements."""
        return (self.rows + 1) * self.stride if self.steps else 0

    @property
    def steps(self) -> int:
        """Number of antidiagonals."""
        return self.rows + self.cols - 1 if self.rows and self.cols else 0

    def inside(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the elements among the matrix's cells, `(rows, cols)`, as a view."""
        if not self.steps:
            return cells.reshape(self.rows, self.cols)
        return cells.reshape(self.rows + 1, self.stride)[1:, self._margin :]

    @property
    def _margin(self) -> int:
        return max(self.taps, self.width)


class Places(NamedTuple):
    """Where some elements stand."""

    cells: I64
    """`(n,)`."""
    near: I64
    """Cells left of each, above it in its kernel, a channel before it, and a row above it, `(4, n)`."""
    slots: I64
    """Of each element's row, channel, tap and column, `(4, n)`; 0 for what has no factor."""
    taps: I64
    """Number of its column in its channel, `(n,)`."""
    matrices: I64
    """`(n,)`."""

    def part(self, start: int, stop: int) -> Places:
        """Return some elements that follow each other, as views."""
        return Places(*[places[..., start:stop] for places in self])


class Waves:
    """The waves of some matrices. Memory: 72 bytes a row, 32 a column, and 310 an element of a wave, or of TOGETHER."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        """Lay out matrices one after the other."""
        self.starts: list[int] = np.cumsum([0] + [extent.cells for extent in extents]).tolist()
        """Where the cells of each matrix begin, and end."""
        rows, columns, slot, before = [np.empty((9, 0), np.int64)], [np.empty((4, 0), np.int64)], 1, 0
        for index, (extent, start) in enumerate(zip(extents, self.starts, strict=False)):
            if not extent.steps:
                continue
            number, at = np.arange(extent.rows), np.arange(extent.cols)
            taps, stride = extent.taps, extent.stride
            own = np.empty((9, extent.rows), np.int64)
            own[0], own[1], own[2] = number, number + extent.cols, slot + number
            own[3] = start + (number + 1) * stride + (stride - extent.cols) - number
            own[4] = before - number
            own[5], own[6], own[7], own[8] = extent.width, taps, stride, index
            rows.append(own)
            slot += extent.rows
            channel, tap = np.divmod(at, taps)
            # Channels of one tap are columns: neither taps nor columns have factors, they share slot 0, which has none.
            several = int(taps > 1)
            channels = extent.cols // taps
            of_taps = slot + channels
            columns.append(np.array((slot + channel, several * (of_taps + tap), several * (of_taps + taps + at), tap)))
            slot += channels + several * (taps + extent.cols)
            before += extent.cols
        self._rows, self._columns = np.concatenate(rows, 1), np.concatenate(columns, 1)
        """Of a row: first wave, wave behind the last, slot, cell and column less the wave, distances of cells near it,
        matrix. Of a column: slots of its channel, of its tap and its own, and tap."""
        self.slots = slot
        """Number of slots."""

    def __iter__(self) -> Iterator[Places]:
        """Yield the elements of each wave."""
        first, last = self._rows[:2]
        waves = int(last.max(initial=0))
        begun, ended = (np.bincount(at.astype(np.intp, copy=False), minlength=waves + 1) for at in (first, last))
        ends = np.cumsum(np.cumsum(begun - ended)[:waves])
        start = before = 0
        while start < waves:
            stop = max(int(np.searchsorted(ends, before + TOGETHER, "right")), start + 1)
            places, taken = self._places(start, stop), 0
            for end in (ends[start:stop] - before).tolist():
                yield places.part(taken, end)
                taken = end
            start, before = stop, int(ends[stop - 1])

    def _places(self, start: int, stop: int) -> Places:
        """Find the elements of some waves, wave after wave."""
        first, last = self._rows[:2]
        own = np.flatnonzero((first < stop) & (last > start))
        begin, end = np.maximum(first.take(own), start), np.minimum(last.take(own), stop)
        sizes = (end - begin).astype(np.intp, copy=False)  # 32-bit systems repeat no int64
        waves = np.arange(sizes.sum(), dtype=np.int64)
        waves -= np.repeat(np.cumsum(sizes) - sizes - begin, sizes)
        # Of 16 bits NumPy sorts by digits, in a quarter of the time.
        order = np.argsort((waves - start).astype(np.int16), kind="stable")
        waves = waves.take(order)
        rows = self._rows.take(np.repeat(own, sizes).take(order), 1)
        slots, near = np.empty((4, waves.size), np.int64), np.empty((4, waves.size), np.int64)
        cells = rows[3] + waves
        slots[0] = rows[2]
        waves += rows[4]
        columns = self._columns.take(waves, 1)
        slots[1:] = columns[:3]
        near[0] = cells - 1
        np.subtract(cells, rows[5:8], out=near[1:])
        return Places(cells, near, slots, columns[3].copy(), rows[8].copy())
