"""A matrix ready for the lanes, and what its symbols are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.buckets import WIDTHS
from seed_runtime.codecs.encode import buckets
from seed_runtime.codecs.encode.contexts import CLASSES, SKEWS, Classes
from seed_runtime.limits import SIDE_MAX

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

CLASSES_ALL = SKEWS * CLASSES
"""Number of classes that a symbol may have."""
_SIDE: Final = SIDE_MAX // 2
"""Sum of rows and columns beyond which a matrix is folded: more would leave little room in a stream for others."""
_FACTORS: Final = (2, 3, 5, 7, 11, 13)
"""Factors by which a matrix may be folded."""
_COUNTS_CACHED = 1 << 14
"""Number of symbols from which a matrix keeps its histogram, which takes 40 KB, for the next size that is asked for."""


def folded(rows: int, cols: int) -> tuple[int, int]:
    """Return rows and columns of as many elements, where a side is too long for a stream's side arrays."""
    while (side := rows + cols) > _SIDE:
        factor = next((factor for factor in _FACTORS if max(rows, cols) % factor == 0), 1)
        tried = (rows * factor, cols // factor) if cols > rows else (rows // factor, cols * factor)
        if sum(tried) >= side:
            break
        rows, cols = tried
    return rows, cols


@dataclass(frozen=True, eq=False)
class CodedMatrix:
    """A matrix ready for the lanes: its live symbols, the bits below them, and its classes. Equal only to itself."""

    symbols: U8
    """Symbols of the live rows and columns, `(live rows * live columns,)`."""
    classes: Classes
    low_bits: int = 0
    low: npt.NDArray[np.uint32] | None = None
    """Bits below each of `symbols`, in their order and each below 2**low_bits."""
    escaped: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """Values of the symbols that are ESCAPE, in order."""
    step: float | None = None
    row_steps: U8 | None = None
    """Step of each row in eighths of an octave above `step`, `(rows,)`."""
    col_steps: U8 | None = None
    """Step of each column in eighths of an octave above that of the row, `(cols,)`."""
    delay: int | None = None
    """Delay of its trellis, None for none."""
    kernel: tuple[int, int] | None = None
    """Taps of the kernel of each channel, whose columns these are, and its width; None where columns are channels."""
    below: npt.NDArray[np.uint16] | None = None
    """Bits below each of `symbols` where these are buckets; None where they are integers."""

    @property
    def counts(self) -> I64:
        """Number of symbols under each class, `(CLASSES_ALL, 256)`."""
        if self.symbols.size < _COUNTS_CACHED:
            return self._count()
        counts = np.zeros((CLASSES_ALL, 256), np.int64)
        used, found = self.class_counts
        counts[used] = found
        return counts

    @property
    def low_bytes(self) -> int:
        """Size of the low planes before they are packed, and of the bits of buckets [B]."""
        bits = 0 if self.below is None else int(WIDTHS.take(self.symbols).sum(dtype=np.int64))
        return -(-(self.symbols.size * self.low_bits + bits) // 8)

    @property
    def integers(self) -> npt.NDArray[np.int32]:
        """What each symbol stands for, escapes apart."""
        if self.below is None:
            return self.symbols.view(np.int8).astype(np.int32)
        return buckets.joined(self.symbols, self.below)

    @property
    def side_bits(self) -> float:
        """Size of classes and steps of rows and columns under their own entropy [bit]."""
        arrays = (self.classes.rows, self.classes.cols, self.row_steps, self.col_steps)
        return sum(entropy_bits(np.bincount(array)[None]) for array in arrays if array is not None)

    @cached_property
    def class_counts(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint32]]:
        """The classes that occur, and the counts of their symbols, `(classes that occur, 256)`."""
        counts = self._count()
        used = np.flatnonzero(counts.any(axis=1))
        return used, counts[used].astype(np.uint32)

    def _count(self) -> I64:
        key = self.classes.of_symbols().reshape(-1).astype(np.uint16)
        key <<= np.uint16(8)
        key |= self.symbols
        return np.bincount(key, minlength=CLASSES_ALL * 256).reshape(CLASSES_ALL, 256)


def histogram(matrices: Sequence[CodedMatrix]) -> I64:
    """Count the symbols under each class over all matrices, `(CLASSES_ALL, 256)`."""
    counts = np.zeros((CLASSES_ALL, 256), np.int64)
    for matrix in matrices:
        used, found = matrix.class_counts
        counts[used] += found
    return counts


def entropy_bits(counts: I64) -> float:
    """Compute the entropy of symbols under their classes, from `(classes, symbols)` counts."""
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(-np.where(counts > 0, counts * np.log2(counts / total), 0).sum())
