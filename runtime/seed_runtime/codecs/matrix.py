"""One coded matrix, and pieces of its symbols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import F32, U8, U32, WINDOW, Index


@dataclass(frozen=True)
class Matrix:
    """One coded matrix. Live rows and columns are those whose class isn't 0."""

    rows: int
    cols: int
    low_bits: int
    steps: F32
    """Quantization steps, `(live rows, 1)` or `(1, 1)`; ones where the codec has none."""
    col_factors: F32 | None
    """Factors by which columns' steps are larger, `(live columns,)`; None where columns have none."""
    row_class: U32
    """What each live row adds to the class of its elements, `(live rows,)`."""
    col_class: U32
    """What each live column adds to the class of its elements, `(live columns,)`."""
    live_rows: Index | None
    """Indices of the live rows, or None when all are."""
    live_cols: Index | None
    has_row_steps: bool
    delay: int | None = None
    """Delay of the matrix's trellis, in elements; None for a matrix without one."""

    @property
    def count(self) -> int:
        """Number of coded symbols."""
        return self.row_class.size * self.col_class.size


@dataclass(frozen=True)
class Piece:
    """Consecutive symbols `start` to `stop` of one matrix, counted over its live rows and columns."""

    index: int
    matrix: Matrix
    start: int
    stop: int
    symbols: U8
    low: U32 | None
    """The `low_bits` below each symbol."""
    escapes: Index
    """Places within the piece whose symbol is ESCAPE."""
    escaped: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32] | None = None
    """Integers of symbols that stand for buckets; None where symbols are integers themselves."""


def steps_of_rows(step: float, codes: U8) -> npt.NDArray[np.float32]:
    """Compute the quantization step of each row, `(rows, 1)`: `step` times the code's factor, rounded once.

    It is infinite where it is too large.
    """
    with np.errstate(over="ignore"):
        return np.float32(step) * factors_of(codes)[:, None]


def factors_of(codes: U8) -> npt.NDArray[np.float32]:
    """Compute what codes multiply a step by, exactly: `(1 + code % 8 / 8) * 2 ** (code // 8)`, eighths of an octave."""
    return np.ldexp((8 + (codes & 7)).astype(np.float32), (codes >> 3).astype(np.int32) - 3)


def among_ones(values: F32, live: Index | None, size: int) -> F32:
    """Return what live rows or columns have, with ones for dead ones, `(size, ...)`."""
    if live is None:
        return values
    spread = np.ones((size, *values.shape[1:]), np.float32)
    spread[live] = values
    return spread


def rectangles(start: int, stop: int, cols: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield at most three `(row, row_end, col, col_end)` that cover elements `start` to `stop` in order."""
    if start == stop:
        return  # `cols` is 0 where all columns are dead
    (row, col), (row_end, col_end) = divmod(start, cols), divmod(stop, cols)
    if row == row_end:
        if col < col_end:
            yield row, row + 1, col, col_end
        return
    if col:
        yield row, row + 1, col, cols
        row += 1
    if row < row_end:
        yield row, row_end, 0, cols
    if col_end:
        yield row_end, row_end + 1, 0, col_end


def rows_by_class(matrix: Matrix, least: np.uint32, table_of: U32) -> U32 | None:
    """Return the places of tables along a row of each row class from the least one on, `(classes, live columns)`.

    None where that exceeds a window, or where there is one row. Copying rows takes a third of the time of adding up
    classes for each row (768 columns).
    """
    if matrix.row_class.size < 2:
        return None
    rows = np.arange(int(least), int(matrix.row_class.max()) + 1)
    if rows.size * matrix.col_class.size > WINDOW:
        return None
    # The sums of unused row classes may lie beyond the last class.
    return table_of.take(rows[:, None] + matrix.col_class.astype(np.intp), mode="clip")
