"""`lowrank`: a product of two quantized factors (SPEC.md, "Codec 5: lowrank").

W[i, j] = p[i, j] * factor[j] * scale[i], with p = sum over r of U[i, r] * V[r, j] * 2**shift[r] in integers,
factor[j] that of V's column j, if it has any, and scale[i] = step of U's row i * step of V. Five roundings at most, in
this order: the row's step, scale[i], p[i, j] * factor[j] and W[i, j] to float32, then to the type in which the model
stores it.

The sum over r of |U[i, r]| * max over j of |V[r, j]| * 2**shift[r] is below 2**24, so float32 holds p and
every partial sum of it exactly: whichever order a BLAS adds in, and with fused operations or without, every
machine decodes the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import F32, WINDOW, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.floats import STORED_AS, to_storage
from seed_runtime.codecs.grid import integers_of
from seed_runtime.codecs.matrix import Matrix, among_ones
from seed_runtime.codecs.scatter import Scatterer
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import Hole
from seed_runtime.limits import FACTOR_BYTES_MAX, FACTORS_MAX, SIDE_MAX

SHIFT_MAX: Final = 23
"""Largest shift of a component."""
EXACT: Final = 1 << 24
"""Integers below this magnitude are exact in float32."""

SCALE_LEAST: Final = 2.0**-126
SCALE_MOST: Final = 2.0**100
"""A scale lies between these, so that no weight overflows or is subnormal, which some machines flush to zero."""


@dataclass(frozen=True)
class Shape:
    """The codec's own fields of one hole."""

    cols: int
    """Columns of the product."""
    shifts: tuple[int, ...]
    """Shift of each component, which is its integers times 2**shift."""

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.shifts)


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order, in blocks of rows (see codec.py).

    Memory: V of one hole in float32, at most FACTOR_BYTES_MAX, and a few windows, whatever the rows.
    """
    for hole in holes:
        if hole.dtype.name not in STORED_AS:
            raise FormatError(where, f"lowrank does not decode {hole.dtype.name}")
    shapes: list[Shape] = []

    def counts(head: Cursor) -> list[int]:
        shapes.extend(_read_shape(head, hole) for hole in holes)
        rows = [hole.count // shape.cols for shape, hole in zip(shapes, holes, strict=True)]
        return [side * shape.rank for shape, n in zip(shapes, rows, strict=True) for side in (shape.cols, n)]

    reader = SymbolReader(chunks, counts, quantized=True, where=where, cores=cores)
    factors = reader.matrices
    scales = [_scales(shape, factors[2 * i], factors[2 * i + 1], where) for i, shape in enumerate(shapes)]
    scatterers = [Scatterer() for _ in factors]
    product: _Product | None = None
    for piece in reader.pieces():
        index, is_left = divmod(piece.index, 2)
        if product is None or product.index != index:
            product = _Product(
                index, shapes[index], scales[index], factors[2 * index], factors[2 * index + 1].rows, where
            )
        for values in scatterers[piece.index].scatter(piece, integers_of(piece)):
            if is_left:
                for block in product.multiply(values):
                    yield to_storage(block, holes[index].dtype)
            else:
                product.fill(values)


def multiply(u: F32, v: F32, scale: F32, col_factors: F32 | None = None) -> F32:
    """Return `(u @ v) * col_factors * scale`, with the arithmetic that the encoder repeats.

    Args:
        u: `(rows, rank)`, integers.
        v: `(rank, cols)`, integers, shifted.
        scale: `(rows, 1)` or `(1, 1)`.
        col_factors: `(cols,)`, or None for ones.
    """
    out = u @ v
    out += np.float32(0)  # a BLAS may leave -0.0 where another leaves 0.0
    if col_factors is not None:
        out *= col_factors
    out *= scale
    return out


def factor_of(shifts: Sequence[int]) -> F32:
    """Return 2**shift for each row of V, `(rank, 1)`."""
    return np.ldexp(np.float32(1), np.array(shifts, np.int32)).astype(np.float32)[:, None]


def most_of_rows(v: F32) -> npt.NDArray[np.float64]:
    """Return the largest magnitude in each row, `(rank,)`."""
    most: npt.NDArray[np.float64] = np.maximum(v.max(axis=1), -v.min(axis=1)).astype(np.float64)
    return most


def _read_shape(head: Cursor, hole: Hole) -> Shape:
    cols = head.varint("columns", limit=SIDE_MAX, least=1)
    if hole.count % cols:
        raise FormatError(head.where, f"{cols} columns do not divide {hole.count:,} elements")
    # A larger one is never needed, and would make a small seed cost more than FACTORS_MAX products a weight.
    rank = head.varint("rank", limit=min(FACTORS_MAX, cols, hole.count // cols), least=1)
    if 4 * rank * cols > FACTOR_BYTES_MAX:
        raise LimitError(f"{head.where}: right factor [B]", 4 * rank * cols, FACTOR_BYTES_MAX)
    shifts = tuple(head.take(rank, "shifts"))
    if max(shifts) > SHIFT_MAX:
        raise FormatError(head.where, f"a shift of {max(shifts)} is too far")
    return Shape(cols, shifts)


def _scales(shape: Shape, v: Matrix, u: Matrix, where: str) -> F32:
    """Return the scale of each row, `(rows, 1)`, or `(1, 1)` where all are the same."""
    if (v.cols, u.cols) != (shape.cols, shape.rank):
        raise FormatError(where, f"factors {v.cols} and {u.cols} wide, not {shape.cols} and {shape.rank}")
    if v.has_row_steps:
        raise FormatError(where, "the right factor has steps of its rows")
    if u.col_factors is not None:
        raise FormatError(where, "the left factor has steps of its columns")
    largest = 1.0 if v.col_factors is None else float(v.col_factors.max(initial=1))
    with np.errstate(over="ignore", under="ignore"):
        live = u.steps * v.steps
    # In float64, which holds these products exactly.
    if not ((live >= SCALE_LEAST) & (live.astype(np.float64) * largest <= SCALE_MOST)).all():
        raise FormatError(where, "the scale of a row is not valid")
    return among_ones(live, u.live_rows, u.rows) if u.has_row_steps else live


class _Product:
    """One hole: V is filled first, then rows of U are multiplied as they come."""

    def __init__(self, index: int, shape: Shape, scales: F32, right: Matrix, rows: int, where: str) -> None:
        self.index = index
        self._shape, self._scales, self._rows, self._where = shape, scales, rows, where
        self._v, self._filled = np.empty(shape.rank * shape.cols, np.float32), 0
        self._v_most = np.empty(0)
        self._col_factors = None
        if right.col_factors is not None:
            self._col_factors = among_ones(right.col_factors, right.live_cols, right.cols)
        # As many rows as make a window of W.
        self._u = np.empty((min(rows, max(1, WINDOW // max(shape.cols, shape.rank))), shape.rank), np.float32)
        self._row, self._pending = 0, 0

    def fill(self, values: Values) -> None:
        """Take the next elements of V."""
        self._v[self._filled : self._filled + values.size] = values
        self._filled += values.size
        if self._filled == self._v.size:
            v = self._v.reshape(self._shape.rank, -1)
            v *= factor_of(self._shape.shifts)
            self._v_most = most_of_rows(v)

    def multiply(self, values: Values) -> Iterator[F32]:
        """Take the next elements of U, and yield the rows of W that they complete."""
        flat, done = self._u.reshape(-1), 0
        while done < values.size:
            block = min(len(self._u), self._rows - self._row)
            wanted = block * self._shape.rank - self._pending
            part = values[done : done + wanted]
            flat[self._pending : self._pending + part.size] = part
            done += part.size
            self._pending += part.size
            if part.size == wanted:
                yield from self._block(self._u[:block])
                self._row, self._pending = self._row + block, 0

    def _block(self, u: F32) -> Iterator[F32]:
        most = float((np.abs(u) @ self._v_most).max())
        if most >= EXACT:
            raise FormatError(self._where, f"sums of up to {most:.0f} are not exact")
        v, scales = self._v.reshape(self._shape.rank, -1), self._scales
        if scales.size > 1:
            scales = scales[self._row : self._row + len(u)]
        # More than one segment of columns only where a row is longer than a window: then a block is one row.
        for col in range(0, self._shape.cols, WINDOW):
            factors = None if self._col_factors is None else self._col_factors[col : col + WINDOW]
            yield multiply(u, v[:, col : col + WINDOW], scales, factors).reshape(-1)
