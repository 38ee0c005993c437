"""Puts the values of live rows and columns back among zeros, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import WINDOW, Index, Values
from seed_runtime.codecs.matrix import Matrix, Piece, rectangles


def zeros(count: int, dtype: npt.DTypeLike) -> Iterator[Values]:
    """Yield `count` zeros, a window at a time."""
    block = np.zeros(min(count, WINDOW), dtype)
    for start in range(0, count, WINDOW):
        yield block[: count - start]


class Scatterer:
    """Makes one whole matrix, in C order, of its pieces, which hold its live rows and columns.

    Memory: one window, or one row where that is longer.
    """

    def __init__(self) -> None:
        self._done = 0
        self._indices: tuple[Index, Index] | None = None

    def scatter(self, piece: Piece, values: Values) -> Iterator[Values]:
        """Yield the elements that the next piece completes: to the matrix's end where it is the last piece.

        Args:
            piece: the next one of the matrix.
            values: `(piece.stop - piece.start,)`, of the live elements.
        """
        matrix = piece.matrix
        if matrix.live_rows is None and matrix.live_cols is None:
            yield values
            return
        live_rows, live_cols = self._live(matrix)
        offset = 0
        for row, row_end, col, col_end in rectangles(piece.start, piece.stop, live_cols.size) if values.size else ():
            while row < row_end:
                # As many rows as fit a window, dead ones between them counted.
                reach = live_rows[row] + max(1, WINDOW // matrix.cols)
                until = min(row_end, int(np.searchsorted(live_rows, reach)))
                size = (until - row) * (col_end - col)
                block = values[offset : offset + size].reshape(until - row, col_end - col)
                yield from self._block(matrix, live_rows[row:until], live_cols[col:col_end], block)
                offset, row = offset + size, until
        if piece.stop == matrix.count:
            yield from zeros(matrix.rows * matrix.cols - self._done, values.dtype)
            self._done, self._indices = 0, None

    def _live(self, matrix: Matrix) -> tuple[Index, Index]:
        if self._indices is None:
            self._indices = (
                np.arange(matrix.rows) if matrix.live_rows is None else matrix.live_rows,
                np.arange(matrix.cols) if matrix.live_cols is None else matrix.live_cols,
            )
        return self._indices

    def _block(self, matrix: Matrix, rows: Any, cols: Any, block: Values) -> Iterator[Values]:
        first, last = int(rows[0]), int(rows[-1])
        begin = max(self._done, first * matrix.cols)
        yield from zeros(begin - self._done, block.dtype)
        out = np.zeros((last - first + 1, matrix.cols), block.dtype)
        out[np.ix_(rows - first, cols)] = block
        self._done = last * matrix.cols + int(cols[-1]) + 1
        yield out.reshape(-1)[begin - first * matrix.cols : self._done - first * matrix.cols]
