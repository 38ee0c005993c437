"""Rounding without covariances: each weight for itself, rows of tables with steps by how often they are read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.graph.linear import table_axis_is_first
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Weight
from seed_exporter.quantize.rounding.layout import average_step, step_codes
from seed_exporter.quantize.rounding.rate_choice import costs_of, rate_choice
from seed_exporter.quantize.rounding.rounder import Rounder, checked, in_steps
from seed_exporter.quantize.rounding.table_rows import read_shares, squared_steps
from seed_exporter.quantize.rounding.trellis import PathChoice, integers_of
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.matrix import factors_of, steps_of_rows

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

_WINDOW: Final = 1 << 15
"""Elements that are rounded at once: their temporaries stay in a cache."""


class RowRounder(Rounder):
    """Rounds each weight for itself.

    Inputs count as uncorrelated, of variance 1; of a table, each position reads one row.
    """

    def __init__(self, weight: Weight, row_counts: I64 | None = None, rate: float = 0.0) -> None:
        """Hold the weight.

        Args:
            weight: what is rounded.
            row_counts: `(parts, rows)`, how often each row of a table was read; None for equal steps.
            rate: weight of a bit when an integer is chosen, in squared steps.
        """
        super().__init__(weight)
        self._row_counts, self._rate = row_counts, rate

    def quantize(self, step: float) -> QuantizedMatrix:
        """Round each weight to the nearest multiple of its row's step, or to the next one where that saves more."""
        codes, least = self._row_steps
        least = checked(step * least)
        integers = self._nearest(least)
        if (choice := rate_choice(integers, self._rate)) is not None:
            for rows, scaled, costs in self._windows(least):
                integers[rows] = choice.choose(scaled, choice.classes[rows], costs)
        return QuantizedMatrix(integers, least, codes)

    def quantize_on_trellis(self, step: float) -> QuantizedMatrix:
        """Find one path from the first element to the last."""
        codes, least = self._row_steps
        least = checked(step * least / 2)
        values = self._nearest(2 * least)
        path = PathChoice(values, self._rate)
        for rows, scaled, costs in self._windows(least):
            classes = None if path.classes is None else path.classes[rows].reshape(-1)
            each = costs.reshape(-1) if costs.size == 1 else np.repeat(costs, scaled.shape[1])
            values[rows] = path.choose(scaled.reshape(-1), classes, each).reshape(scaled.shape)
        return QuantizedMatrix(integers_of(values), least, codes, delay=1)

    def damage(self, matrix: QuantizedMatrix) -> float:
        """Compute the squared error of all weights together; of a table, of a row that is read."""
        squared = np.square(self.errors(matrix), dtype=np.float64)
        if not table_axis_is_first(self.weight):
            return float(squared.sum())
        of_rows = squared.reshape(self.weight.shape[0], -1).sum(axis=1)
        return float(of_rows.mean() if self._row_counts is None else of_rows @ read_shares(self._row_counts))

    def of(self, weight: Weight, rate: float) -> Rounder:
        """Return a rounder of another weight, with the same counts."""
        return RowRounder(weight, self._row_counts, rate)

    @property
    def is_calibrated(self) -> bool:
        """True if it knows how often the rows of a table are read."""
        return self._row_counts is not None

    def _costs(self, codes: U8 | None) -> F32:
        """Compute what a squared step of each row costs, `(rows, 1)`; `(1, 1)` where all cost the same."""
        if self._row_counts is None or codes is None:
            return np.ones((1, 1), np.float32)
        shares = read_shares(self._row_counts)
        squared = np.square(factors_of(codes), dtype=np.float64)
        return costs_of(np.repeat(shares, codes.size // shares.size) * squared)[:, None]

    def _nearest(self, least: float) -> I32:
        integers = np.empty(coded_view(self.weight), np.int32)
        for rows, scaled, _ in self._windows(least):
            integers[rows] = np.rint(scaled, out=scaled)
        return integers

    def _windows(self, least: float) -> Iterator[tuple[slice, F32, F32]]:
        """Yield rows after rows: which they are, their weights in steps, and what a squared step of them costs."""
        weights, (codes, _) = as_float32(self.weight), self._row_steps
        costs = self._costs(codes)
        steps = np.full((1, 1), least, np.float32) if codes is None else steps_of_rows(least, codes)
        window = max(1, _WINDOW // max(1, weights.shape[1]))
        for start in range(0, len(weights), window):
            rows = slice(start, start + window)
            scaled = in_steps(weights[rows], steps if codes is None else steps[rows])
            yield rows, scaled, costs if costs.size == 1 else costs[rows]

    @cached_property
    def _row_steps(self) -> tuple[U8 | None, float]:
        """Codes of the rows' steps, and the least step over the plain one."""
        rows = coded_view(self.weight)[0]
        squared = None if self._row_counts is None else squared_steps(self._row_counts)
        # A table that was folded into more rows has several for each of its own.
        if squared is None or rows % squared.size:
            return None, 1.0
        codes = step_codes(np.sqrt(np.repeat(squared, rows // squared.size)))
        return (codes, average_step(factors_of(codes))) if codes.any() else (None, 1.0)
