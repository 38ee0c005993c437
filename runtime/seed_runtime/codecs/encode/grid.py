"""Encode side of `grid`: quantized integers to symbols, low bits and escapes under classes of magnitude."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.encode.contexts import CLASSES, Classes, magnitude_classes, with_skew
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.matrix import factors_of, steps_of_rows
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.codecs.symbols import STEP_LEAST
from seed_runtime.codecs.trellis import Trellis
from seed_runtime.limits import DELAY_MAX

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

INTEGER_MAX: Final = 1 << 23
"""Largest magnitude of a quantized integer: beyond, float32 has no more digits."""
_ALPHABET_MEAN: Final = 12.0
"""Mean magnitude of the symbols, in their own units, above which low bits go uncoded: flat to 0.01 bits there."""


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A matrix on a uniform grid, as every kind of rounding hands it to the coder. Equal only to itself.

    A weight is its integer times the factor of its column, if columns have any, times the step of its row, see
    `factors_of` and `steps_of_rows`.

    Attributes:
        integers: `(rows, cols)`, of magnitude INTEGER_MAX at most, half of that on a trellis.
        step: quantization step, in weight units.
        row_steps: `(rows,)`, eighths of an octave by which a row's step lies above `step`; None for one step.
        col_steps: `(cols,)`, the same of columns, on top of the rows' steps; None for none.
        row_classes: `(rows,)`, 0 for a row of zeros, else 1 + its part of the class of each of its symbols; None to
            derive row and column classes from the integers' magnitudes.
        col_classes: `(cols,)`, the same of columns; given where `row_classes` are.
        delay: that of the trellis that gives the integers their values, in elements, see `trellis`; None for none.
            A step is then half of the distance between two values of one grid.

    Raises:
        ValueError: what is given along an axis has another length, or a step or the delay is none that a decoder takes.
    """

    integers: I32
    step: float
    row_steps: U8 | None = None
    col_steps: U8 | None = None
    row_classes: U8 | None = None
    col_classes: U8 | None = None
    delay: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no decoder would take, while it is known where it comes from."""
        rows, cols = self.integers.shape
        by_row, by_col = (self.row_steps, self.row_classes), (self.col_steps, self.col_classes)
        for arrays, length in ((by_row, rows), (by_col, cols)):
            for array in arrays:
                if array is not None and array.shape != (length,):
                    raise ValueError(f"steps or classes of shape {array.shape} don't fit a matrix of {rows} x {cols}")
        steps = np.array(self.step, np.float32) if self.row_steps is None else steps_of_rows(self.step, self.row_steps)
        if not (np.isfinite(steps).all() and self.step >= STEP_LEAST):
            raise ValueError(f"a quantization step of {self.step} is too small or too large")
        if self.delay is not None and not 1 <= self.delay <= min(DELAY_MAX, rows * cols):
            raise ValueError(f"a trellis of a matrix of {rows} x {cols} has no delay of {self.delay:,}")

    def values(self, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Compute the weights that a decoder makes of it, `(rows, cols)`, infinite where they are too large.

        Args:
            dtype: float64 gives the products before a decoder rounds them.
        """
        steps = np.float32(self.step) if self.row_steps is None else steps_of_rows(self.step, self.row_steps)
        first = steps if self.col_steps is None else factors_of(self.col_steps)
        with np.errstate(over="ignore"):
            weights: npt.NDArray[Any] = np.multiply(self.multiples(), first, dtype=dtype, casting="same_kind")
            if self.col_steps is not None:
                weights *= steps
        return weights

    def multiples(self) -> npt.NDArray[Any]:
        """Return what steps are multiplied by, `(rows, cols)`: the integers, or on a trellis what these stand for."""
        if self.delay is None:
            return self.integers
        flat = self.integers.reshape(-1)
        trellis = Trellis(self.delay, flat.size)
        multiples = np.empty(flat.size, np.int32)
        for start in range(0, flat.size, WINDOW):
            multiples[start : start + WINDOW] = trellis.values(flat[start : start + WINDOW])
        return multiples.reshape(self.integers.shape)


def round_to_nearest(weights: F32, step: float) -> QuantizedMatrix:
    """Round each weight to the nearest multiple of `step`; magnitudes are capped at INTEGER_MAX steps.

    Args:
        weights: `(rows, cols)`, finite.
        step: quantization step, in weight units.
    """
    scaled = weights * np.float32(1 / step)
    np.rint(scaled, out=scaled)
    return QuantizedMatrix(np.clip(scaled, -INTEGER_MAX, INTEGER_MAX, out=scaled).astype(np.int32), step)


def round_in_place(weights: F32, step: float) -> QuantizedMatrix:
    """Round as `round_to_nearest` does, to integers that take the place of the weights.

    Args:
        weights: `(rows, cols)`, finite and contiguous; overwritten. Beside it one window is allocated.
        step: quantization step, in weight units.
    """
    integers = weights.view(np.int32)
    old, new = weights.reshape(-1), integers.reshape(-1)
    for start in range(0, old.size, WINDOW):
        part = slice(start, start + WINDOW)
        new[part] = round_to_nearest(old[None, part], step).integers
    return QuantizedMatrix(integers, step)


def matrix_of(matrix: QuantizedMatrix) -> CodedMatrix:
    """Split quantized integers into symbols, low bits and escapes, under the matrix's classes.

    Raises:
        ValueError: an integer is too large, a row or column of class 0 holds something else than zeros, a symbol has a
            class beyond the last one, or only one axis has classes.
    """
    integers = matrix.integers
    magnitudes = np.abs(integers)
    largest = INTEGER_MAX if matrix.delay is None else INTEGER_MAX // 2
    if magnitudes.size and not 0 <= magnitudes.min() <= magnitudes.max() <= largest:
        raise ValueError(f"quantized integers have magnitudes of at most {largest:,}")
    mean = float(magnitudes.mean())
    low_bits = max(0, math.ceil(math.log2(mean / _ALPHABET_MEAN))) if mean > 0 else 0
    if matrix.row_classes is None and matrix.col_classes is None:
        classes = magnitude_classes(magnitudes, 2.0**-low_bits)
    else:
        classes = _given_classes(matrix, magnitudes)
    high = integers if (classes.rows > 0).all() and (classes.cols > 0).all() else integers[classes.live()]
    if matrix.row_classes is None and high.size:
        classes = with_skew(classes, high)
    high = high.reshape(-1)
    low = None
    if low_bits:
        low = (high & np.int32((1 << low_bits) - 1)).view(np.uint32)
        high = high >> np.int32(low_bits)
    symbols = high.astype(np.int8).view(np.uint8)
    far = np.flatnonzero((high > 127) | (high < -127))
    symbols[far] = ESCAPE
    steps = matrix.step, matrix.row_steps, matrix.col_steps
    return CodedMatrix(symbols, classes, low_bits, low, high[far], *steps, matrix.delay)


def _given_classes(matrix: QuantizedMatrix, magnitudes: I32) -> Classes:
    rows, cols = matrix.row_classes, matrix.col_classes
    if rows is None or cols is None:
        raise ValueError("a quantized matrix has classes of both axes or of none")
    if magnitudes[rows == 0].any() or magnitudes[:, cols == 0].any():
        raise ValueError("a row or column of class 0 holds integers that aren't zero, and they would be lost")
    if int(rows.max(initial=0)) + int(cols.max(initial=0)) - 2 >= CLASSES:
        raise ValueError(f"the classes of a row and a column add up to more than the {CLASSES} of a stream")
    return Classes(rows, cols)
