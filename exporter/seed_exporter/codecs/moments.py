"""Encode side of `moments`: the published method, for comparison.

Rows are samples: their mean and principal components are kept in float16, of the rest its moments and how
many weights were zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.lowrank import spectrum
from seed_runtime.codecs import moments as decoder
from seed_runtime.codecs.encode import raw
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.moments import Moments
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import FLOAT32
from seed_runtime.format.header import Hole
from seed_runtime.format.packing import STORED
from seed_runtime.limits import CHUNK_DECODED_MAX, FACTOR_BYTES_MAX, FACTORS_MAX

F32 = npt.NDArray[np.float32]

_F16_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Tensor:
    """A matrix reduced to its head and its float16 numbers: mean row, components, scores."""

    head: Moments
    halves: npt.NDArray[np.float16]
    rows: int

    def values(self) -> F32:
        """What the decoder makes of it, `(rows, cols)`, before rounding to the model's type."""
        hole = Hole(FLOAT32, (self.rows, self.head.cols), 0)
        head = self.head.pack()
        data = self.halves.astype("<f2", copy=False).tobytes()
        starts = range(0, len(data), CHUNK_DECODED_MAX)
        chunks = [bytes([STORED]) + primitives.varint(len(head)) + head]
        chunks += [bytes([STORED, 1]) + data[start : start + CHUNK_DECODED_MAX] for start in starts]
        blocks = decoder.decode([hole], (memoryview(chunk) for chunk in chunks), "moments")
        return np.concatenate(list(blocks)).reshape(hole.dims)


def components_for(rows: int, cols: int, size: int) -> int:
    """Most components whose numbers fit `size` bytes; their compression gains next to nothing."""
    return max(0, min((size // 2 - cols) // (rows + cols), components_max(rows, cols)))


def components_max(rows: int, cols: int) -> int:
    """Most components that the format and the matrix allow."""
    return min(rows, cols, FACTORS_MAX, FACTOR_BYTES_MAX // (4 * cols))


def encode(weights: F32, components: int, *, seed: int = 0, noise: bool = True) -> Tensor:
    """Keep `components` principal components.

    Args:
        weights: `(rows, cols)`, finite.
        components: 0 to `components_max`; fewer are kept where the matrix has no more.
        seed: of the noise, below 2**32; another one for each tensor, or equal shapes get equal noise.
        noise: redraw the residual, as published; without, the error is smaller.
    """
    rows, cols = weights.shape
    if not 0 <= components <= components_max(rows, cols):
        raise ValueError(f"a matrix of {rows} x {cols} can't have {components} components")
    mean = _to_half(weights.mean(axis=0, dtype=np.float64))
    centred = weights - mean.astype(np.float32)
    parts = [mean]
    if components and centred.any():
        singular, vectors = spectrum(centred, components)
        # Balanced, so that neither side leaves float16's range.
        root = np.sqrt(singular).astype(np.float32)
        basis = _to_half(vectors * root[:, None])
        parts += [basis, _to_half(centred @ basis.T.astype(np.float32) / np.square(root))]
        components = len(basis)
    else:
        components = 0
    head = Moments(cols, components, seed, 0.0, 0.0, 0.0)
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


def stream(tensors: Sequence[Tensor]) -> list[bytes]:
    """The chunks of one stream."""
    head = b"".join(tensor.head.pack() for tensor in tensors)
    packing, packed = pack(head)
    halves = np.concatenate([tensor.halves for tensor in tensors]).astype("<f2", copy=False)
    return [primitives.uint(packing, 1) + primitives.varint(len(head)) + packed, *raw.encode(halves.tobytes(), 2)]


def _to_half(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    return np.clip(values, -_F16_MOST, _F16_MOST).astype(np.float16)


def _in_range(value: float) -> float:
    """As float32, or 0 below what the decoder takes."""
    return float(np.float32(value)) if 2.0**-64 < abs(value) < 2.0**64 else 0.0
