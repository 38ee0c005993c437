"""`delta`: a weight as what differs from a base's, or anew among weights that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Plan, Progress, measured
from seed_exporter.graph.matrix import coded_view
from seed_exporter.graph.model import Weight
from seed_runtime.codecs import delta as decoder
from seed_runtime.codecs.encode import delta, symbols
from seed_runtime.codecs.encode.delta import Change
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.format.header import Hole

_WORDS: Final = {
    decoder.UNCHANGED: "as in the base",
    decoder.DIFFERENCE: "quantized difference to the base",
    decoder.BITS: "exact difference to the base",
    decoder.ANEW: "anew",
    decoder.BY_OCTAVE: "exact difference to the base",
}


@dataclass(frozen=True, eq=False)
class DeltaPlan(Plan):
    """What makes a weight of the base's. Equal only to itself.

    Attributes:
        change: mode and integers.
        base: the base's tensor, laid out as the weight's data; anything in mode ANEW.
    """

    adjustable: ClassVar[bool] = True
    change: Change
    base: npt.NDArray[Any] = field(repr=False)

    def describe(self) -> str:
        """Say how the weight differs from the base's."""
        return _WORDS[self.change.mode]


class DeltaCodec(Codec[DeltaPlan, Change]):
    """Codes what differs of weights of all types as one stream."""

    name = "delta"
    plan = DeltaPlan

    def stream_key(self, weight: Weight) -> str:
        """Return one key for all element types."""
        return ""

    def sides(self, weight: Weight) -> int:
        """Return how many rows and columns the weight adds, if it changes at all."""
        return sum(coded_view(weight))

    def prepare(self, weight: Weight, plan: DeltaPlan, index: int) -> Change:
        """Return the plan's change, which is ready to be coded."""
        return plan.change

    def encode(self, prepared: Sequence[Change], progress: Progress | None = None) -> SymbolStream:
        """Code all changes under common tables."""
        return delta.encode(prepared, progress)

    def estimate(self, prepared: Sequence[Change]) -> StreamEstimate:
        """Compute the sizes from the tables; what doesn't change takes none."""
        matrices = [change.matrix for change in prepared if change.matrix is not None]
        if not matrices:
            return measured(self.encode(prepared), [0.0] * len(prepared))
        found = symbols.estimate(matrices, prefix=delta.own_fields(prepared))
        sizes = iter(found.tensors)
        tensors = tuple(0.0 if change.matrix is None else next(sizes) for change in prepared)
        return StreamEstimate(found.chunks, tensors)

    def restore(self, weight: Weight, plan: DeltaPlan) -> npt.NDArray[Any]:
        """Decode the change on top of the base's tensor."""
        chunks = iter([memoryview(chunk) for chunk in self.encode([plan.change]).chunks])
        hole = Hole(weight.dtype, weight.shape, 0)
        decoded = decoder.decode([hole], chunks, weight.name, _Tensor(plan.base.reshape(-1)))
        data = b"".join(np.ascontiguousarray(block).tobytes() for block in decoded)
        return np.frombuffer(data, weight.data.dtype).reshape(weight.data.shape)


@dataclass(frozen=True, eq=False)
class _Tensor:
    """One tensor as the base of a stream with one hole."""

    values: npt.NDArray[Any]

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        return self.values[start:stop]


CODEC = DeltaCodec()
