"""Walks matrices of small integers by their antidiagonals, all matrices at once (SPEC.md, "Order of the elements").

Step t has, of each matrix, the elements whose row and column have the sum t. What lies left of an element and above it
is then known, and none of a step depends on another one of it: NumPy decodes a step at a time, some hundred elements,
with the contexts that a decoder of single elements would have.

An element is first expected to have a magnitude: that of its matrix so far, times factors of its row, channel, tap and
column, each by how much more they had so far than was expected of them. All in integers; logarithms are in 256ths of an
octave, and straight lines between powers of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.mixing import I64, Mixer

Cells = npt.NDArray[np.int8]

ESCAPE: Final = 15
"""Magnitude from which on an element's own magnitude stands behind the words."""
SIGN: Final = -1
"""In place of a magnitude: whether the element is negative."""

_ONE: Final = 1 << 12
"""A magnitude of 1 among expected ones."""
_SHRINK: Final = np.array([[3], [3], [20], [4]], np.int64)
"""How much a row, a channel, a tap and a column must have had to be half believed, in units of 1 + the mean."""
_MATRIX_SHRINK: Final = 10
"""Number of elements of all matrices' mean with which a matrix begins."""
_LEAST, _MOST = 1 << 10, 20 << 8
"""Bounds of the logarithm of expected magnitudes: 2**-8 to 2**8."""
_LOG_OF_ONE_IN_FLOAT: Final = 1023 << 8
_FINE, _COARSE, _NEARBY, _TAPS, _MEANS, _SIDES = 128, 32, 9, 9, 8, 22
"""Number of levels of the expected magnitude, fine and coarse; of what is nearby; of taps; of a matrix's mean; of what
is expected of a row, or of a column, alone."""
_AT: Final = tuple(np.cumsum([0, _FINE, _COARSE * _NEARBY, 7 * _TAPS * _MEANS, _SIDES * _SIDES]).tolist())
"""Where the contexts of each input begin, and the number of all."""
_STAGES: Final = 4
"""Number of magnitudes whose decisions have contexts of their own; the last ones are those of all larger ones."""
_KINDS: Final = 8
"""Number of magnitudes whose decisions have weights of their own."""
_PRIOR: Final = 12
"""Number of decisions that a context of an expected magnitude has seen before the first one."""


class Decide(Protocol):
    """Decides yes or no, by reading it from a stream or by knowing it."""

    def __call__(self, chances: I64, cells: I64, above: int) -> npt.NDArray[np.bool_]:
        """Return the decisions, `(n,)`.

        Args:
            chances: probability of yes in 4,096ths.
            cells: of which elements.
            above: whether their magnitudes are above this; SIGN for whether they are negative.
        """


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


class Wavefront:
    """Decides all elements of some matrices. Memory: a byte a cell, 90 bytes a row and 16 for each column and tap."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        """Begin with nothing decided."""
        self.starts = np.cumsum([0] + [extent.cells for extent in extents]).tolist()
        """Where the cells of each matrix begin, and end."""
        self.cells: Cells = np.zeros(self.starts[-1], np.int8)
        """Elements with the magnitudes above ESCAPE as ESCAPE, matrix after matrix, and zeros around them."""
        self.escaped: list[I64] = []
        """Cells of magnitudes from ESCAPE on, step by step."""
        self._steps = max((extent.steps for extent in extents), default=0)
        self._lay_out(extents)
        self._total = self._count = 0
        self._magnitudes = Mixer(_STAGES * _AT[-1], 4, _KINDS)
        _expect_geometric(self._magnitudes.counts)
        self._signs = Mixer(27 + 9 + 9, 3, 1)

    def run(self, decide: Decide) -> None:
        """Decide all elements, in order."""
        for step in range(self._steps):
            self._step(step, decide)

    def _lay_out(self, extents: Sequence[Extent]) -> None:
        rows, slot = [], 1
        for index, (extent, start) in enumerate(zip(extents, self.starts, strict=False)):
            if not extent.steps:
                continue
            own = np.empty((11, extent.rows), np.int64)
            number = np.arange(extent.rows)
            channels = extent.cols // extent.taps
            # Channels of one tap are columns: neither taps nor columns have factors, they share slot 0, which has none.
            several = int(extent.taps > 1)
            own[0], own[1] = number, number + extent.cols
            own[2] = start + (number + 1) * extent.stride + (extent.stride - extent.cols)
            own[3], own[4] = slot + number, slot + extent.rows
            own[5] = slot + extent.rows + channels
            own[6] = own[5] + extent.taps
            slot += extent.rows + channels + several * (extent.taps + extent.cols)
            own[7], own[8], own[9], own[10] = extent.taps, extent.width, extent.stride, index
            rows.append(own)
        self._rows = np.concatenate(rows, 1) if rows else np.empty((11, 0), np.int64)
        self._had, self._expected = np.zeros(slot, np.int64), np.zeros(slot, np.int64)
        self._totals, self._counts = np.zeros(len(extents), np.int64), np.zeros(len(extents), np.int64)

    def _step(self, step: int, decide: Decide) -> None:
        active = np.flatnonzero((self._rows[0] <= step) & (self._rows[1] > step))
        first, _, cells, rows, channels, of_taps, columns, taps, width, stride, matrix = self._rows.take(active, 1)
        at = step - first
        cells += at
        channel, tap = np.divmod(at, taps)
        several = taps > 1
        slots = np.stack((rows, channels + channel, (of_taps + tap) * several, (columns + at) * several))
        mean, factors, logs, parts = self._expect(slots, matrix)
        around = self.cells.take(cells - np.stack((np.ones_like(taps), width, taps, stride)))
        nearby = np.abs(around).sum(0, dtype=np.int64)
        contexts = np.stack((
            (logs - _LEAST) >> 5,
            _AT[1] + ((logs - _LEAST) >> 7) * _NEARBY + np.minimum(nearby, _NEARBY - 1),
            _AT[2] + (np.minimum(nearby, 6) * _TAPS + np.minimum(tap, _TAPS - 1)) * _MEANS
            + _bounded((mean >> 8) - 7, 0, _MEANS - 1),
            _AT[3] + _level_of_side(mean + factors[0]) * _SIDES + _level_of_side(mean + factors[1] + factors[3]),
        ))  # fmt: skip
        contexts *= 2 * _STAGES
        magnitudes = self._decide_magnitudes(contexts, cells, decide)
        self._decide_signs(around, magnitudes, cells, decide)
        # Flat: of NumPy 2.4, ufunc.at adds wrong values where it has to broadcast them.
        np.add.at(self._had, slots.reshape(-1), np.tile(_ONE * magnitudes, len(slots)))
        np.add.at(self._expected, slots.reshape(-1), parts.reshape(-1))
        self._had[0] = self._expected[0] = 0
        np.add.at(self._totals, matrix, magnitudes)
        self._counts += np.bincount(matrix.astype(np.intp, copy=False), minlength=self._counts.size)
        self._total += int(magnitudes.sum())
        self._count += magnitudes.size

    def _expect(self, slots: I64, matrix: I64) -> tuple[I64, I64, I64, I64]:
        """Return logarithms of the mean, of factors, and of the magnitude, and what that is without each factor.

        Args:
            slots: `(4, n)`, of each element's row, channel, tap and column.
            matrix: `(n,)`.

        Returns:
            `(n,)`, `(4, n)`, `(n,)`, and `(4, n)` in units of 1 / _ONE.
        """
        start = (_ONE * self._total + _ONE // 2) // (self._count + 1)
        mean = _ONE * self._totals.take(matrix) + _MATRIX_SHRINK * start
        mean //= self._counts.take(matrix) + _MATRIX_SHRINK
        np.maximum(mean, 1, out=mean)
        shrink = _SHRINK * (mean + _ONE)
        factors = _log(self._had.take(slots) + shrink)
        factors -= _log(self._expected.take(slots) + shrink)
        log_mean = _log(mean)
        logs = _bounded(log_mean + factors.sum(0), _LEAST, _MOST - 1)
        return log_mean, factors, logs, _power(_bounded(logs - factors, 0, _MOST - 1))

    def _decide_magnitudes(self, contexts: I64, cells: I64, decide: Decide) -> I64:
        magnitudes = np.zeros(cells.size, np.int64)
        left = np.arange(cells.size)
        for above in range(ESCAPE):
            chances = self._magnitudes.predict(contexts + 2 * min(above, _STAGES - 1), min(above, _KINDS - 1))
            larger = decide(chances, cells.take(left), above)
            self._magnitudes.learn(larger)
            kept = larger.nonzero()[0]
            left = left.take(kept)
            if not left.size:
                break
            magnitudes[left] += 1
            contexts = contexts.take(kept, 1)
        else:
            self.escaped.append(cells.take(left))
        self._magnitudes.end_step()
        return magnitudes

    def _decide_signs(self, around: Cells, magnitudes: I64, cells: I64, decide: Decide) -> None:
        present = magnitudes.nonzero()[0]
        if not present.size:
            return
        left, over, before, up = np.sign(around.take(present, 1)).astype(np.int64) + 1
        index = np.stack(((left * 3 + over) * 3 + up, 27 + left * 3 + before, 36 + up * 3 + before))
        index *= 2
        cells = cells.take(present)
        negative = decide(self._signs.predict(index, 0), cells, SIGN)
        self._signs.learn(negative)
        self._signs.end_step()
        own = magnitudes.take(present)
        self.cells[cells] = np.where(negative, -own, own)


def _level_of_side(logs: I64) -> I64:
    """Return the level of what is expected of a row, or of a column, alone."""
    return _bounded((logs >> 7) - 10, 0, _SIDES - 1)


def _expect_geometric(counts: I64) -> None:
    """Begin the contexts of expected magnitudes with decisions as magnitudes of a geometric distribution have them."""
    for at, levels, each in ((_AT[0], _FINE, 1), (_AT[1], _COARSE, _NEARBY)):
        octave = (_MOST - _LEAST) // levels
        expected = _power(_LEAST + octave * np.arange(levels) + octave // 2)
        yes = (_PRIOR * expected + (expected + _ONE) // 2) // (expected + _ONE)
        pairs = counts[2 * _STAGES * at :][: 2 * _STAGES * levels * each].reshape(levels, _STAGES * each, 2)
        pairs[:] = np.stack((_PRIOR - yes, yes), 1)[:, None]


def _bounded(numbers: I64, least: int, most: int) -> I64:
    """Bound numbers in place: np.clip takes three times as long for some hundred of them."""
    np.maximum(numbers, least, out=numbers)
    return np.minimum(numbers, most, out=numbers)


def _log(numbers: I64) -> I64:
    """Return 256 * (e + numbers / 2**e - 1), rounded down, with 2**e <= numbers: of 1 or more, below 2**53."""
    # The exponent and the upper eight bits of the fraction, which float64 has as they are wanted.
    logs: I64 = numbers.astype(np.float64).view(np.int64) >> 44
    logs -= _LOG_OF_ONE_IN_FLOAT
    return logs


def _power(logs: I64) -> I64:
    """Return what has these logarithms, rounded down: `_log` undone."""
    return ((256 + (logs & 255)) << (logs >> 8)) >> 8
