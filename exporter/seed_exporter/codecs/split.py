"""`split`: floats whose exponents are entropy-coded and whose signs and mantissas are kept as planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Progress
from seed_exporter.codecs.exact import ExactPlan, kept
from seed_exporter.graph.matrix import coded_view
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import split, symbols
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.codecs.encode.tables import Tables


@dataclass(frozen=True)
class SplitPlan(ExactPlan):
    """Exponents under contexts, of the types that `seed_runtime.codecs.split` knows."""


class SplitCodec(Codec[SplitPlan, CodedMatrix]):
    """Codes the weights of one element type under common tables."""

    name = "split"
    plan = SplitPlan

    def prepare(self, weight: Weight, plan: SplitPlan, index: int) -> CodedMatrix:
        """Split the bits of each element into a symbol and planes."""
        return split.matrix_of(kept(weight, plan).reshape(coded_view(weight)), weight.dtype)

    def encode(self, prepared: Sequence[CodedMatrix], progress: Progress | None = None) -> SymbolStream:
        """Code the symbols of all weights."""
        return symbols.encode(prepared, progress)

    def estimate(self, prepared: Sequence[CodedMatrix]) -> StreamEstimate:
        """Compute the sizes from the tables."""
        return symbols.estimate(prepared)

    def size_among(self, prepared: Sequence[CodedMatrix]) -> Callable[[CodedMatrix], float]:
        """Return a function that computes sizes from the stream's tables."""
        return Tables.of(prepared).bytes_of

    def restore(self, weight: Weight, plan: SplitPlan) -> npt.NDArray[Any]:
        """Return the elements that are kept."""
        return kept(weight, plan)


CODEC = SplitCodec()
