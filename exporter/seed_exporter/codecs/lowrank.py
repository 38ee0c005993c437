"""`lowrank`: a matrix as the product of two matrices of quantized integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Plan, Progress
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.encode.matrix import CodedMatrix, entropy_bits, histogram
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.codecs.encode.tables import Tables
from seed_runtime.codecs.floats import to_storage
from seed_runtime.codecs.lowrank import factor_of, multiply
from seed_runtime.format import primitives
from seed_runtime.limits import SIDE_MAX

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Factors:
    """A matrix as a product, ready for the lanes: `v`, then `u`. Equal only to itself."""

    v: I32
    """Integers of the right factor, `(rank, cols)`."""
    u: I32
    """Integers of the left factor, `(rows, rank)`."""
    shifts: tuple[int, ...]
    """Octaves by which each row of `v` is scaled up."""
    step: float
    """Quantization step of `u`, in weight units; that of `v` is 1."""
    matrices: tuple[CodedMatrix, CodedMatrix]
    bits: float
    """Size of both factors as `rate_bits` counts it, and of the shifts [bit]."""
    mse: float
    """Mean squared error, in squared weight units."""

    def values(self) -> F32:
        """Compute what the decoder makes of it, `(rows, cols)`, before rounding to the model's type."""
        return product(self.u, self.v, self.shifts, self.step)


def product(u: I32, v: I32, shifts: Sequence[int], step: float) -> F32:
    """Multiply two factors as the decoder does, `(rows, cols)`."""
    shifted = v.astype(np.float32) * factor_of(shifts)
    return multiply(u.astype(np.float32), shifted, np.full((1, 1), step, np.float32))


def rate_bits(matrices: Sequence[CodedMatrix]) -> float:
    """Compute what symbols, low bits, escapes and classes take [bit]; tables, which a stream shares, aren't counted."""
    side = 0.0
    for matrix in matrices:
        side += matrix.symbols.size * matrix.low_bits + 32.0 * matrix.escaped.size + matrix.side_bits
    return side + entropy_bits(histogram(matrices))


@dataclass(frozen=True)
class LowRankPlan(Plan):
    """A product of two factors.

    Attributes:
        step: quantization step of the grid whose distortion the factors keep, in weight units.
        factors: found when they were compared with that grid, too expensive to find again.
    """

    adjustable: ClassVar[bool] = True
    step: float
    factors: Factors = field(repr=False)

    def describe(self) -> str:
        """Give the rank and the step."""
        return f"rank {len(self.factors.shifts)}, step {self.step:.3g}"


class LowRankCodec(Codec[LowRankPlan, Factors]):
    """Codes the factors of all weights under common tables."""

    name = "lowrank"
    plan = LowRankPlan
    sides_max = SIDE_MAX // 2
    """Half of a stream's limit: a product has the sides of both factors."""

    def stream_key(self, weight: Weight) -> str:
        """Return one key for all element types."""
        return ""

    def prepare(self, weight: Weight, plan: LowRankPlan, index: int) -> Factors:
        """Return the factors of the plan."""
        return plan.factors

    def encode(self, prepared: Sequence[Factors], progress: Progress | None = None) -> SymbolStream:
        """Code the symbols of all factors."""
        return symbols.encode(_matrices(prepared), progress, prefix=_prefix(prepared))

    def estimate(self, prepared: Sequence[Factors]) -> StreamEstimate:
        """Compute the sizes from the tables; a weight has those of both of its factors."""
        found = symbols.estimate(_matrices(prepared), prefix=_prefix(prepared))
        pairs = zip(found.tensors[::2], found.tensors[1::2], strict=True)
        return StreamEstimate(found.chunks, tuple(v + u for v, u in pairs))

    def size_among(self, prepared: Sequence[Factors]) -> Callable[[Factors], float]:
        """Return a function that computes sizes from the stream's tables."""
        tables = Tables.of(_matrices(prepared))
        return lambda factors: len(factors.shifts) + sum(map(tables.bytes_of, factors.matrices))

    def restore(self, weight: Weight, plan: LowRankPlan) -> npt.NDArray[Any]:
        """Multiply the factors, as the decoder does."""
        return to_storage(plan.factors.values(), weight.dtype).reshape(weight.data.shape)


def _matrices(prepared: Sequence[Factors]) -> list[CodedMatrix]:
    return [matrix for factors in prepared for matrix in factors.matrices]


def _prefix(prepared: Sequence[Factors]) -> bytes:
    return b"".join(
        primitives.varint(factors.v.shape[1]) + primitives.varint(len(factors.shifts)) + bytes(factors.shifts)
        for factors in prepared
    )


CODEC = LowRankCodec()
