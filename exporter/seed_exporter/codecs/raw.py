"""`raw`: bytes as they are, in planes and compressed where that pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Progress, measured
from seed_exporter.codecs.exact import ExactPlan, kept
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import raw
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class RawPlan(ExactPlan):
    """Bytes as they are, of any element type."""


class RawCodec(Codec[RawPlan, Values]):
    """Codes the weights of one element type as one run of bytes."""

    name = "raw"
    plan = RawPlan

    def sides(self, weight: Weight) -> int:
        """Return 0: bytes have no rows and columns."""
        return 0

    def prepare(self, weight: Weight, plan: RawPlan, index: int) -> Values:
        """Return the elements that are kept."""
        return kept(weight, plan)

    def encode(self, prepared: Sequence[Values], progress: Progress | None = None) -> SymbolStream:
        """Pack the bytes of all weights."""
        return SymbolStream(raw.encode(b"".join(data.tobytes() for data in prepared), prepared[0].itemsize), 0.0)

    def estimate(self, prepared: Sequence[Values]) -> StreamEstimate:
        """Pack the bytes: what they are worth depends on repetitions, which only packing finds."""
        return measured(self.encode(prepared), [data.nbytes for data in prepared])

    def restore(self, weight: Weight, plan: RawPlan) -> Values:
        """Return the elements that are kept."""
        return kept(weight, plan)


CODEC = RawCodec()
