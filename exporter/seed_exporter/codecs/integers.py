"""`integers`: weights that a model reads as integers, coded as they are (targets/ makes them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Plan, Progress
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import grid, symbols
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.codecs.encode.tables import Tables
from seed_runtime.format.dtypes import BY_NAME


@dataclass(frozen=True)
class IntegersPlan(Plan):
    """Integers as the model reads them.

    Attributes:
        matrix: the integers, with a step of 1 and none of rows and columns.
        width: bits of each, 2, 4 or 8.
        step: quantization step of most of them, in weight units.
    """

    adjustable: ClassVar[bool] = True
    matrix: QuantizedMatrix = field(repr=False)
    width: int
    step: float

    def describe(self) -> str:
        """Give the width and the step, and whether integers are on a trellis."""
        trellis = "" if self.matrix.delay is None else ", on a trellis"
        return f"{self.width} bits, step {self.step:.3g}{trellis}"


class Integers(NamedTuple):
    """A weight ready for the lanes, and the width of its integers [bit]."""

    coded: CodedMatrix
    width: int


class IntegersCodec(Codec[IntegersPlan, Integers]):
    """Codes integers of all widths under common tables."""

    name = "integers"
    plan = IntegersPlan
    reuses_prepared = True

    def stream_key(self, weight: Weight) -> str:
        """Return one key for all element types: steps make their symbols alike."""
        return ""

    def sides(self, weight: Weight) -> int:
        """Return the most rows and columns that its matrix has: four integers stand in a byte at most."""
        return weight.shape[0] + 4 * (weight.count // weight.shape[0])

    def prepare(self, weight: Weight, plan: IntegersPlan, index: int) -> Integers:
        """Class the symbols."""
        return Integers(grid.matrix_of(plan.matrix), plan.width)

    def encode(self, prepared: Sequence[Integers], progress: Progress | None = None) -> SymbolStream:
        """Code the symbols of all weights."""
        return symbols.encode([each.coded for each in prepared], progress, prefix=_widths(prepared))

    def estimate(self, prepared: Sequence[Integers]) -> StreamEstimate:
        """Compute the sizes from the tables."""
        return symbols.estimate([each.coded for each in prepared], prefix=_widths(prepared))

    def size_among(self, prepared: Sequence[Integers]) -> Callable[[Integers], float]:
        """Return a function that computes sizes from the stream's tables."""
        tables = Tables.of([each.coded for each in prepared])
        return lambda one: 1 + tables.bytes_of(one.coded)

    def restore(self, weight: Weight, plan: IntegersPlan) -> npt.NDArray[Any]:
        """Return the bytes that hold the integers, as the decoder makes them."""
        return stored(plan.matrix.multiples(), plan.width, weight.dtype.name).reshape(weight.data.shape)


def stored(integers: npt.NDArray[Any], width: int, dtype: str) -> npt.NDArray[Any]:
    """Return the bytes of integers, flat: of int8 as they are, of uint8 as unsigned fields, the first one lowest.

    Args:
        integers: in the order of memory, `8 // width` of them for each byte.
        width: bits of each.
        dtype: `int8` or `uint8`.

    Raises:
        ValueError: one of them has more bits.
    """
    flat = integers.reshape(-1)
    half = 1 << (width - 1)
    if flat.size and not -half <= flat.min() <= flat.max() < half:
        raise ValueError(f"{width} bits hold integers from {-half} to {half - 1}")
    if dtype == "int8":
        return flat.astype(np.int8)
    fields = (flat + half).astype(np.uint8).reshape(-1, 8 // width)
    packed = np.zeros(len(fields), BY_NAME[dtype].storage)
    for place in range(8 // width):
        packed |= fields[:, place] << np.uint8(width * place)
    return packed


def _widths(prepared: Sequence[Integers]) -> bytes:
    return bytes(each.width for each in prepared)


CODEC = IntegersCodec()
