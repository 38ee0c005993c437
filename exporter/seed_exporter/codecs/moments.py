"""`moments`: the published method, for comparison.

Rows are samples: their mean and principal components are kept in float16, of the rest its moments and how many weights
were zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.base import Codec, Plan, Progress, measured
from seed_exporter.codecs.spectrum import spectrum
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Weight
from seed_runtime.codecs import moments as decoder
from seed_runtime.codecs.encode import raw
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.codecs.floats import to_storage
from seed_runtime.codecs.moments import Moments
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import FLOAT32
from seed_runtime.format.header import Hole
from seed_runtime.format.packing import STORED
from seed_runtime.limits import CHUNK_DECODED_MAX, FACTOR_BYTES_MAX, FACTORS_MAX

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Spectrum = tuple[F64, F32]
"""Singular values and right unit vectors of a matrix without its mean row, see `spectrum`."""

_WORK: Final = 1 << 19
"""Bytes of components that LZMA is given at most: they are coded again for each size that is tried [B]."""
_F16_MOST = float(np.finfo(np.float16).max)
"""Largest number in float16."""


@dataclass(frozen=True)
class Tensor:
    """A matrix reduced to its head and its float16 numbers: the mean row, components, scores."""

    head: Moments
    halves: npt.NDArray[np.float16]
    rows: int

    def values(self) -> F32:
        """Compute what the decoder makes of it, `(rows, cols)`, before rounding to the model's type."""
        hole = Hole(FLOAT32, (self.rows, self.head.cols), 0)
        head = self.head.pack()
        data = self.halves.astype("<f2", copy=False).tobytes()
        starts = range(0, len(data), CHUNK_DECODED_MAX)
        chunks = [bytes([STORED]) + primitives.varint(len(head)) + head]
        chunks += [bytes([STORED, 1]) + data[start : start + CHUNK_DECODED_MAX] for start in starts]
        blocks = decoder.decode([hole], (memoryview(chunk) for chunk in chunks), "moments")
        return np.concatenate(list(blocks)).reshape(hole.dims)


def components_for(rows: int, cols: int, size: int) -> int:
    """Compute the most components whose numbers fit `size` bytes before they are compressed."""
    return max(0, min((size // 2 - cols) // (rows + cols), components_max(rows, cols)))


def components_max(rows: int, cols: int) -> int:
    """Compute the most components that the format and the matrix allow."""
    return min(rows, cols, FACTORS_MAX, FACTOR_BYTES_MAX // (4 * cols))


def centred_spectrum(weights: F32) -> Spectrum:
    """Compute all principal components of a matrix, for reductions to several numbers of them."""
    centred = weights - _mean(weights).astype(np.float32)
    return spectrum(centred, components_max(*weights.shape))


def reduce(
    weights: F32, components: int, *, rng_seed: int = 0, noise: bool = True, known_spectrum: Spectrum | None = None
) -> Tensor:
    """Reduce a matrix to its principal components, and moments of the rest.

    Args:
        weights: `(rows, cols)`, finite.
        components: 0 to `components_max`; fewer are kept where the matrix has no more.
        rng_seed: of the noise, below 2**32; another one for each tensor, or equal shapes get equal noise.
        noise: redraw the residual, as published; without, the error is smaller.
        known_spectrum: the matrix's `centred_spectrum`, where it is known.
    """
    rows, cols = weights.shape
    if not 0 <= components <= components_max(rows, cols):
        raise ValueError(f"a matrix of {rows} x {cols} can't have {components} components")
    mean = _mean(weights)
    centred = weights - mean.astype(np.float32)
    parts = [mean]
    if components and centred.any():
        singular, vectors = known_spectrum or spectrum(centred, components)
        singular, vectors = singular[:components], vectors[:components]
        # Balanced, so that neither side leaves float16's range.
        root = np.sqrt(singular).astype(np.float32)
        basis = _to_half(vectors * root[:, None])
        parts += [basis, _to_half(centred @ basis.T.astype(np.float32) / np.square(root))]
        components = len(basis)
    else:
        components = 0
    head = Moments(cols, components, rng_seed, 0.0, 0.0, 0.0)
    tensor = Tensor(head, np.concatenate([part.ravel() for part in parts]), rows)
    if noise:
        residual = weights.astype(np.float64) - tensor.values()
        moments = _in_range(float(residual.mean())), _in_range(float(residual.std()))
        tensor = replace(tensor, head=replace(tensor.head, mean=moments[0], deviation=moments[1]))
    zeros = 1 - np.count_nonzero(weights) / weights.size
    if zeros:
        threshold = _in_range(float(np.quantile(np.abs(tensor.values()), zeros)))
        tensor = replace(tensor, head=replace(tensor.head, threshold=threshold))
    return tensor


@dataclass(frozen=True)
class MomentsPlan(Plan):
    """The published method.

    Attributes:
        components: number of principal components that are kept.
        spectrum: the matrix's `centred_spectrum`, where several plans are tried.
    """

    adjustable: ClassVar[bool] = True
    components: int
    spectrum: Spectrum | None = field(default=None, compare=False, repr=False)

    def describe(self) -> str:
        """Give the number of components."""
        return f"{self.components} components, the rest redrawn"


class MomentsCodec(Codec[MomentsPlan, Tensor]):
    """Codes the heads and the numbers of all weights of one element type."""

    name = "moments"
    plan = MomentsPlan

    def prepare(self, weight: Weight, plan: MomentsPlan, index: int) -> Tensor:
        """Reduce the weight; its place in the stream starts its noise."""
        return reduce(as_float32(weight), plan.components, rng_seed=index, known_spectrum=plan.spectrum)

    def encode(self, prepared: Sequence[Tensor], progress: Progress | None = None) -> SymbolStream:
        """Pack the heads, and the numbers of all weights in planes."""
        head = b"".join(tensor.head.pack() for tensor in prepared)
        packing, packed = pack(head)
        halves = np.concatenate([tensor.halves for tensor in prepared]).astype("<f2", copy=False)
        first = primitives.uint(packing, 1) + primitives.varint(len(head)) + packed
        return SymbolStream([first, *raw.encode(halves.tobytes(), 2, work=raw.Work(_WORK))], 0.0)

    def estimate(self, prepared: Sequence[Tensor]) -> StreamEstimate:
        """Pack the numbers: they have no tables from which a size would follow."""
        return measured(self.encode(prepared), [tensor.halves.nbytes for tensor in prepared])

    def restore(self, weight: Weight, plan: MomentsPlan) -> npt.NDArray[Any]:
        """Reduce the weight and put it together again; its noise is that of a weight alone in its stream."""
        return to_storage(self.prepare(weight, plan, 0).values(), weight.dtype).reshape(weight.data.shape)


CODEC = MomentsCodec()


def _mean(weights: F32) -> npt.NDArray[np.float16]:
    return _to_half(weights.mean(axis=0, dtype=np.float64))


def _to_half(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    return np.clip(values, -_F16_MOST, _F16_MOST).astype(np.float16)


def _in_range(value: float) -> float:
    """Round to float32, or to 0 below what the decoder takes."""
    return float(np.float32(value)) if 2.0**-64 < abs(value) < 2.0**64 else 0.0
