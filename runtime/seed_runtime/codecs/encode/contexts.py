"""Classes of rows and columns, which decide what symbols share a probability table.

A symbol's expected magnitude is modelled as the product of its row's and its column's. Classes are logarithms of these,
so that the sum of a row's and a column's class is the number of a table. One set of tables serves a whole stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

CLASS_STEP: Final = 0.25
"""Distance of two neighbouring classes, as a natural logarithm of the magnitude.

Instead of .35 it saves .05 to .3 % of the bytes of public models at a ratio of 8, side arrays and tables counted.
"""
CLASSES: Final = 80
"""Number of classes by magnitude that a symbol may have.

With 40 of them, the rows and columns of PP-OCR rec whose magnitudes are far apart take .8 % more bytes.
"""
ORIGIN: Final = -36
"""Index of table 0 before clipping: the class of a mean magnitude of exp(-36 * .25) = 0.0001 steps."""
SKEWS: Final = 3
"""Kinds of columns: neither sign prevails, the positive one does, the negative one does. Each has CLASSES classes."""
_SKEW: Final = 0.1
"""Share of a column's integers by which one sign must prevail."""
_SKEW_SIGMAS: Final = 2
"""Standard deviations by which it must do so more than by chance."""
_SKEW_BITS: Final = 250
"""Size of the tables of one more kind of columns, and of its share in side arrays that are packed worse [bit]."""


@dataclass(frozen=True, eq=False)
class Classes:
    """Classes of a matrix, per row and per column: 0 where all is zero, else 1 + class. Equal only to itself."""

    rows: U8
    cols: U8
    offsets: U8 | None = None
    """What each element adds to its class, `(rows, columns)`, where the base's octave does; all live then."""

    @property
    def reach(self) -> int:
        """Number of classes up to the largest that a row, a column and an offset may add up to."""
        if self.offsets is None or not self.rows.any() or not self.cols.any():
            return 0  # rows and columns meet, so that their sum is in use
        return int(self.rows.max()) + int(self.cols.max()) - 1 + int(self.offsets.max())

    def live(self) -> tuple[npt.NDArray[np.intp], ...]:
        """Return the index of the live rows and columns of a matrix."""
        return np.ix_(np.flatnonzero(self.rows), np.flatnonzero(self.cols))

    def live_offsets(self) -> tuple[U8, U8]:
        """Return what each live row and each live column adds to the class of its symbols."""
        return self.rows[self.rows > 0] - np.uint8(1), self.cols[self.cols > 0] - np.uint8(1)

    def of_symbols(self) -> U8:
        """Compute the class of each live symbol, `(live rows, live columns)`."""
        rows, cols = self.live_offsets()
        classes: U8 = rows[:, None] + cols[None]
        return classes if self.offsets is None else classes + self.offsets

    def of_elements(self) -> U8:
        """Compute the class of each element, `(rows, columns)`; where all is zero, that of the lowest magnitude."""
        rows, cols = (np.maximum(each, 1) - np.uint8(1) for each in (self.rows, self.cols))
        return rows[:, None] + cols[None]


def magnitude_classes(magnitudes: npt.NDArray[np.integer], scale: float = 1.0) -> Classes:
    """Derive classes from the mean magnitude of rows and columns, where they save more than they cost.

    Args:
        magnitudes: `(rows, cols)`, not negative.
        scale: size of a unit of `magnitudes`, in units of a symbol.
    """
    rows, cols = magnitudes.mean(axis=1, dtype=np.float64), magnitudes.mean(axis=0, dtype=np.float64)
    return from_levels(_log(rows * scale), _log(cols * scale), float(_log(rows.mean(keepdims=True) * scale)[0]))


def with_skew(classes: Classes, integers: npt.NDArray[np.integer]) -> Classes:
    """Move columns in which one sign prevails to classes of their own, where that saves more than it costs.

    Args:
        classes: of the matrix, by magnitude.
        integers: `(live rows, live columns)`.
    """
    positive, negative = np.count_nonzero(integers > 0, axis=0), np.count_nonzero(integers < 0, axis=0)
    signs = positive + negative
    least = np.maximum(_SKEW * signs, _SKEW_SIGMAS * np.sqrt(signs))
    kinds = np.where(positive - negative > least, 1, np.where(negative - positive > least, 2, 0))
    by_kind = [int((kinds == kind).sum()) for kind in range(SKEWS)]
    side = _entropy(*by_kind) + _SKEW_BITS * (np.count_nonzero(by_kind[1:]))
    gain = sum(
        int(signs[kinds == kind].sum())
        - _entropy(int(positive[kinds == kind].sum()), int(negative[kinds == kind].sum()))
        for kind in (1, 2)
    )
    if gain <= side:
        return classes
    cols = classes.cols.copy()
    cols[cols > 0] += (CLASSES * kinds).astype(np.uint8)
    return Classes(classes.rows, cols)


def from_levels(rows: F64, cols: F64, mean: float, step: float = CLASS_STEP) -> Classes:
    """Derive classes from the levels of rows and columns.

    Args:
        rows: `(rows,)`, natural logarithms of the rows' levels; `-inf` marks a row of zeros.
        cols: `(cols,)`, the same of columns.
        mean: natural logarithm of the matrix's level.
        step: distance of two neighbouring classes, as a natural logarithm.
    """
    live_rows, live_cols = np.isfinite(rows), np.isfinite(cols)
    if not live_rows.any() or not live_cols.any():
        return Classes(np.zeros(rows.size, np.uint8), np.zeros(cols.size, np.uint8))
    count_rows, count_cols = int(live_rows.sum()), int(live_cols.sum())
    # Zeros of dead columns lower a live row's mean; undo it, so that pruned matrices share tables with whole ones.
    dead = np.log(cols.size / count_cols)
    rows = rows + dead
    spread = cols - (mean + dead)
    row_index = np.rint(np.where(live_rows, rows, 0) / step).astype(int)
    col_index = np.rint(np.where(live_cols, spread, 0) / step).astype(int)
    row_index = _one_class_if_cheaper(row_index, live_rows, count_rows * count_cols, step)
    col_index = _one_class_if_cheaper(col_index, live_cols, count_rows * count_cols, step)
    low = int(col_index[live_cols].min())
    col_index = np.clip(col_index - low, 0, CLASSES // 2)
    row_index = np.clip(row_index + low - ORIGIN, 0, CLASSES - 1 - int(col_index[live_cols].max()))
    return Classes(
        np.where(live_rows, row_index + 1, 0).astype(np.uint8), np.where(live_cols, col_index + 1, 0).astype(np.uint8)
    )


def _one_class_if_cheaper(
    index: npt.NDArray[np.int64], live: npt.NDArray[np.bool_], symbols: int, step: float
) -> npt.NDArray[np.int64]:
    """Return the classes of an axis, or one class for all of it where several cost more than they save.

    A magnitude that is off by a factor exp(d) costs about d**2 / 2 nats / ln 2 = 0.7 d**2 bits a symbol (Laplace).
    """
    chosen = index[live]
    centre = round(float(chosen.mean()))
    _, counts = np.unique(chosen, return_counts=True)
    share = counts / counts.sum()
    side = -(share * np.log2(share)).sum() * chosen.size + 16
    gain = 0.5 / np.log(2) * float(((chosen - centre) * step).var()) * symbols
    return index if gain > side else np.full_like(index, centre)


def _entropy(*counts: int) -> float:
    """Compute the entropy of symbols that occur so often, all of them together [bit]."""
    present = np.array([count for count in counts if count])
    return float((present * np.log2(present.sum() / present)).sum())


def _log(values: F64) -> F64:
    with np.errstate(divide="ignore"):
        return np.log(values)
