"""`split`: floats whose exponents are entropy-coded and whose signs and mantissas are kept as planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from seed_exporter.codecs.exact import ExactPlan, kept
from seed_exporter.codecs.matrices import MatrixCodec
from seed_exporter.graph.matrix import coded_view
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import split
from seed_runtime.codecs.encode.matrix import CodedMatrix


@dataclass(frozen=True)
class SplitPlan(ExactPlan):
    """Exponents under contexts, of the types that `seed_runtime.codecs.split` knows."""


class SplitCodec(MatrixCodec[SplitPlan]):
    """Codes the weights of one element type under common tables."""

    name = "split"
    plan = SplitPlan

    def prepare(self, weight: Weight, plan: SplitPlan, index: int) -> CodedMatrix:
        """Split the bits of each element into a symbol and planes."""
        return split.matrix_of(kept(weight, plan).reshape(coded_view(weight)), weight.dtype)

    def restore(self, weight: Weight, plan: SplitPlan) -> npt.NDArray[Any]:
        """Return the elements that are kept."""
        return kept(weight, plan)


CODEC = SplitCodec()
