"""Round weights to integers: to nearest, or with errors that later weights compensate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.model import Weight
from seed_exporter.quantize.effort import Effort
from seed_exporter.quantize.rounding.by_covariance import CovarianceRounder
from seed_exporter.quantize.rounding.by_rows import RowRounder
from seed_exporter.quantize.rounding.rounder import Rounder

__all__ = ["Rounder", "rounder_of"]


def rounder_of(
    weight: Weight, covariance: Covariance | None, row_counts: npt.NDArray[np.int64] | None, effort: Effort
) -> Rounder:
    """Return the rounder of a weight.

    Args:
        weight: a weight of a float type, whose values are finite.
        covariance: moments of its inputs, by its `linear_view`; None where none were measured.
        row_counts: `(parts, rows)`, how often each row of a table was read; None where it is no table.
        effort: what is worth its time.

    Raises:
        ValueError: the moments are those of another weight.
    """
    view = linear_view(weight)
    if effort.feedback and covariance is not None and view is not None:
        groups, _, inputs = view.shape
        if covariance.moments.shape[1:] != (groups, inputs, inputs):
            raise ValueError(f"{weight.name}: moments {covariance.moments.shape} don't fit {groups} x {inputs} inputs")
        return CovarianceRounder(weight, view, covariance, input_steps=effort.input_steps, rate=effort.rate)
    return RowRounder(weight, row_counts if effort.table_rows else None, effort.rate)
