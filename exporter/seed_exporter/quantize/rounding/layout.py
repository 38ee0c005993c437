"""Where the inputs of a weight lie in its coded matrix, and their steps as steps of its rows or columns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from seed_exporter.graph.linear import LinearView
from seed_runtime.codecs.matrix import factors_of
from seed_runtime.limits import DELAY_MAX

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class Place(Enum):
    """Where inputs lie in a coded matrix."""

    ROWS = "each input on rows of its own"
    COLUMNS = "each input on a column of its own"
    SHARED = "on columns that all groups share"
    NONE = "elsewhere"


@dataclass(frozen=True, eq=False)
class InputSteps:
    """Steps of inputs, as the coded matrix has them. Equal only to itself.

    Attributes:
        multiples: `(groups, inputs)`, each input's step over the least one.
        least: the least step over the plain one, so that the geometric mean of all is the plain one.
        row_steps: codes of the coded matrix's rows, see `QuantizedMatrix`; None for equal steps.
        col_steps: the same of its columns.
    """

    multiples: F32
    least: float
    row_steps: U8 | None = None
    col_steps: U8 | None = None

    def above(self, least: float) -> F32:
        """Compute the inputs' steps, `(groups, inputs)`, from the least one."""
        return np.float32(least) * self.multiples


def place_of_inputs(view: LinearView, coded: tuple[int, int]) -> Place:
    """Find where the inputs of a weight lie in its coded matrix of `coded` rows and columns."""
    groups, _, inputs = view.shape
    matrix = _coded(view, coded, np.arange(groups * inputs).reshape(groups, inputs))
    if (matrix == matrix[:, :1]).all():
        return Place.ROWS
    if (matrix == matrix[:1]).all():
        return Place.COLUMNS
    matrix = matrix % inputs
    return Place.SHARED if (matrix == matrix[:1]).all() else Place.NONE


def path_delay(view: LinearView) -> int | None:
    """Return the distance in memory of weights of one input that follow each other; None where groups lie between.

    Inputs are rounded one after the other, each in all groups at once. Where the weights of each lie in one piece, a
    path goes on to the next one.
    """
    groups, _, inputs = view.shape
    for axes, delay in (((*view.groups, *view.outputs, *view.inputs), inputs), ((*view.inputs, *view.outputs), 1)):
        lying = [axis for axis in axes if view.stored[axis] != 1]
        if lying == sorted(lying) and (delay == inputs or groups == 1):
            return delay if delay <= DELAY_MAX else None
    return None


def input_steps(view: LinearView, coded: tuple[int, int], squared: F64 | None = None) -> InputSteps:
    """Round the wanted steps of inputs to those that a stream can say, around the same geometric mean.

    Args:
        view: the weight as a linear map.
        coded: rows and columns of its coded matrix.
        squared: `(groups, inputs)`, the squares of the wanted factors of steps, equal in all groups where these share
            columns; None for equal steps.
    """
    groups, _, inputs = view.shape
    codes = np.zeros((groups, inputs), np.uint8)
    if squared is not None:
        codes = step_codes(np.sqrt(squared))
    if not codes.any():
        return InputSteps(np.ones((groups, inputs), np.float32), 1.0)
    multiples = factors_of(codes)
    matrix = _coded(view, coded, codes)
    rows = np.ascontiguousarray(matrix[:, 0]) if (matrix == matrix[:, :1]).all() else None
    cols = np.ascontiguousarray(matrix[0]) if rows is None else None
    return InputSteps(multiples, average_step(multiples), rows, cols)


def step_codes(wanted: F64) -> U8:
    """Return the codes of steps above the least one, nearest to the wanted ratios (see `symbols.factors_of`)."""
    octaves = np.log2(wanted / wanted.min())
    whole = np.floor(octaves)
    return np.rint(8 * (whole + np.exp2(octaves - whole) - 1)).astype(np.uint8)


def average_step(multiples: F32) -> float:
    """Compute the factor of the least step that makes 1 the geometric mean of its multiples."""
    return float(np.exp(-np.log(multiples, dtype=np.float64).mean()))


def _coded(view: LinearView, coded: tuple[int, int], values: np.ndarray) -> np.ndarray:
    """Lay values of inputs `(groups, inputs)` out as the coded matrix."""
    groups, outputs, inputs = view.shape
    whole = np.broadcast_to(values[:, None], (groups, outputs, inputs))
    return view.stored_of(whole).reshape(coded)
