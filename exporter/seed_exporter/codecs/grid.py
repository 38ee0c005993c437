"""`grid`: matrices on a uniform grid, entropy-coded under contexts.

Every kind of rounding comes in by one door: the plan holds the `QuantizedMatrix` that it made of the weight, which may
bring steps of its rows and columns, and classes of its own. A plan without one stands for rounding to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.matrices import MatrixCodec
from seed_exporter.graph.matrix import as_float32, kernel_of
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import grid
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.floats import to_storage


@dataclass(frozen=True)
class GridPlan(Plan):
    """A uniform grid.

    Attributes:
        step: quantization step, in weight units.
        matrix: integers that calibration or training found, `(rows, cols)` as `coded_view` lays the weight out; None to
            round each element to nearest when it is coded, which takes no memory until then.
    """

    adjustable: ClassVar[bool] = True
    step: float
    matrix: QuantizedMatrix | None = field(default=None, repr=False)

    @classmethod
    def of(cls, matrix: QuantizedMatrix) -> GridPlan:
        """Plan to code integers as they are."""
        return cls(matrix.step, matrix)

    @classmethod
    def of_narrow(cls, matrix: QuantizedMatrix) -> GridPlan:
        """Plan to code integers as they are, kept in the narrowest type that holds them and their magnitudes."""
        largest = max(int(matrix.integers.max(initial=0)), -int(matrix.integers.min(initial=0)))
        narrow = next(kind for kind in (np.int8, np.int16, np.int32) if largest <= np.iinfo(kind).max)
        return cls(matrix.step, replace(matrix, integers=matrix.integers.astype(narrow)))

    def quantize(self, weight: Weight) -> QuantizedMatrix:
        """Return the integers of the plan, or round the weight to nearest."""
        if self.matrix is None:
            return grid.round_to_nearest(as_float32(weight), self.step)
        if self.matrix.integers.dtype == np.int32:
            return self.matrix
        return replace(self.matrix, integers=self.matrix.integers.astype(np.int32))

    def describe(self) -> str:
        """Give the quantization step, whether integers are on a trellis, and what scales the step."""
        scales = None if self.matrix is None else (self.matrix.row_steps, self.matrix.col_steps)
        scaled = [axis for axis, codes in zip(("row", "column"), scales or (), strict=False) if codes is not None]
        trellis = "" if self.matrix is None or self.matrix.delay is None else ", on a trellis"
        return f"step {self.step:.3g}{trellis}" + (f", scaled by {' and '.join(scaled)}" if scaled else "")


class GridCodec(MatrixCodec[GridPlan]):
    """Codes weights of any float type under common tables: steps make their symbols alike."""

    name = "grid"
    plan = GridPlan
    reuses_prepared = True

    def stream_key(self, weight: Weight) -> str:
        """Return one key for all element types."""
        return ""

    def prepare(self, weight: Weight, plan: GridPlan, index: int) -> CodedMatrix:
        """Round the weight and class its symbols."""
        return replace(grid.matrix_of(plan.quantize(weight)), kernel=kernel_of(weight))

    def restore(self, weight: Weight, plan: GridPlan) -> npt.NDArray[Any]:
        """Round the weight and multiply by its steps, as the decoder does."""
        values = plan.quantize(weight).values()
        return to_storage(values, weight.dtype).reshape(weight.data.shape)


CODEC = GridCodec()
