"""Where the inputs of a weight lie in its coded matrix, and steps of inputs as steps of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.graph.linear import LinearView
from seed_runtime.codecs.symbols import steps_of_rows

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

STEP_SPREAD_MAX: Final = 8.0
"""Largest factor between an input's step and the average one, either way."""


@dataclass(frozen=True, eq=False)
class InputSteps:
    """Steps of inputs, as the coded matrix has them. Equal only to itself.

    Attributes:
        multiples: `(groups, inputs)`, each input's step over the least one.
        least: the least step over the plain one, so that the geometric mean of all is the plain one.
        row_steps: codes of the coded matrix's rows, see `QuantizedMatrix`; None for equal steps.
    """

    multiples: F32
    least: float
    row_steps: U8 | None

    def above(self, least: float) -> F32:
        """Compute the inputs' steps, `(groups, inputs)`, from the least one, in float32 as a decoder does."""
        return np.float32(least) * self.multiples


def equal_steps(view: LinearView) -> InputSteps:
    """Return one step for all inputs."""
    groups, _, inputs = view.shape
    return InputSteps(np.ones((groups, inputs), np.float32), 1.0, None)


def expressible(view: LinearView, coded: tuple[int, int]) -> bool:
    """Return whether inputs can have steps: they must lie on rows of the coded matrix."""
    groups, _, inputs = view.shape
    index = np.arange(groups * inputs).reshape(groups, inputs)
    return _along_rows(view, coded, index) is not None


def input_steps(view: LinearView, coded: tuple[int, int], squared: F64) -> InputSteps:
    """Round the wanted steps of inputs to those that a stream can say, around the same geometric mean.

    Args:
        view: the weight as a linear map, whose steps are `expressible`.
        coded: rows and columns of its coded matrix.
        squared: `(groups, inputs)`, the squares of the wanted factors of steps.
    """
    wanted = np.clip(np.sqrt(squared), 1 / STEP_SPREAD_MAX, STEP_SPREAD_MAX)
    codes = step_codes(wanted)
    rows = _along_rows(view, coded, codes)
    if rows is None or not codes.any():
        return equal_steps(view)
    multiples = steps_of_rows(1.0, codes.reshape(-1))[:, 0].reshape(codes.shape)
    return InputSteps(multiples, float(np.exp(-np.log(multiples, dtype=np.float64).mean())), rows)


def step_codes(wanted: F64) -> U8:
    """Return the codes of steps above the least one, nearest to the wanted ratios (see `symbols.steps_of_rows`)."""
    octaves = np.log2(wanted / wanted.min())
    whole = np.floor(octaves)
    return np.rint(8 * (whole + np.exp2(octaves - whole) - 1)).astype(np.uint8)


def _along_rows(view: LinearView, coded: tuple[int, int], values: np.ndarray) -> np.ndarray | None:
    """Return the values of inputs by coded row, None where a row has several inputs' values."""
    groups, outputs, inputs = view.shape
    whole = np.broadcast_to(values[:, None], (groups, outputs, inputs))
    matrix = view.stored_of(whole).reshape(coded)
    return np.ascontiguousarray(matrix[:, 0]) if (matrix == matrix[:, :1]).all() else None
