"""`grid`: matrices on a uniform grid, entropy-coded under contexts.

Every kind of rounding comes in by one door: a function from a weight and a step to a `QuantizedMatrix`, which may bring
steps of its rows and classes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Plan, Progress
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import grid, symbols
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.symbols import CodedMatrix, StreamEstimate, SymbolStream
from seed_runtime.codecs.floats import to_storage

Rounding = Callable[[Weight, float], QuantizedMatrix]
"""Rounds a weight to a grid of a step, `(rows, cols)` as `coded_view` lays it out."""


def nearest(weight: Weight, step: float) -> QuantizedMatrix:
    """Round each element to the nearest multiple of `step`."""
    return grid.round_to_nearest(as_float32(weight), step)


@dataclass(frozen=True)
class GridPlan(Plan):
    """A uniform grid.

    Attributes:
        step: quantization step, in weight units.
        rounding: what rounds the weight to the grid.
    """

    quantizes: ClassVar[bool] = True
    step: float
    rounding: Rounding = nearest

    def describe(self) -> str:
        """Give the quantization step."""
        return f"step {self.step:.3g}"


class GridCodec(Codec[GridPlan, CodedMatrix]):
    """Codes weights of any float type under common tables: steps make their symbols alike."""

    name = "grid"
    plan = GridPlan
    reuses_prepared = True

    def stream_key(self, weight: Weight) -> str:
        """Return one key for all element types."""
        return ""

    def prepare(self, weight: Weight, plan: GridPlan, index: int) -> CodedMatrix:
        """Round the weight and class its symbols."""
        return grid.matrix_of(plan.rounding(weight, plan.step))

    def encode(self, prepared: Sequence[CodedMatrix], progress: Progress | None = None) -> SymbolStream:
        """Code the symbols of all weights."""
        return symbols.encode(prepared, progress)

    def estimate(self, prepared: Sequence[CodedMatrix]) -> StreamEstimate:
        """Compute the sizes from the tables."""
        return symbols.estimate(prepared)

    def restore(self, weight: Weight, plan: GridPlan) -> npt.NDArray[Any]:
        """Round the weight and multiply by its steps, as the decoder does."""
        values = plan.rounding(weight, plan.step).values()
        return to_storage(values, weight.dtype).reshape(weight.data.shape)


CODEC = GridCodec()
