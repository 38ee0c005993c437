"""`moments`: principal components, moments of what they leave, noise redrawn (SPEC.md, "Codec 4: moments").

The published method, for comparison. Element j of row i is computed in float32, each operation rounded:
mean[j], then for every component r in order + score[i, r] * component[r, j] (a multiplication, then an
addition), then + (noise mean + noise deviation * z), with z of the generator. Below the threshold it becomes
zero.

Multiplications and additions are separate NumPy calls on whole arrays: no BLAS, whose order of sums and fused
operations differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime import generator
from seed_runtime.codecs.arrays import F32, WINDOW, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.floats import STORED_AS, to_storage
from seed_runtime.codecs.raw import unshuffle
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format import primitives
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import Hole
from seed_runtime.limits import CHUNK_DECODED_MAX, FACTOR_BYTES_MAX, FACTORS_MAX, SIDE_MAX

RNG_SEED_MAX: Final = (1 << 32) - 1
"""Largest `rng_seed` of the noise."""
_LEAST, _MOST = 2.0**-64, 2.0**64
"""Moments lie between these, so that nothing overflows or is subnormal, which some machines flush to zero."""


@dataclass(frozen=True)
class Moments:
    """The head's record of one hole."""

    cols: int
    components: int
    rng_seed: int
    mean: float
    """Mean of the noise."""
    deviation: float
    """Standard deviation of the noise. Where this and the mean are 0, no noise is drawn."""
    threshold: float
    """Weights of a smaller magnitude become zero."""

    def pack(self) -> bytes:
        """Return the bytes of the record."""
        sizes = primitives.varint(self.cols) + primitives.varint(self.components) + primitives.varint(self.rng_seed)
        return sizes + primitives.f32(self.mean) + primitives.f32(self.deviation) + primitives.f32(self.threshold)


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, _cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order, a window or a row at a time (see codec.py).

    Memory: the components of one hole in float32, at most FACTOR_BYTES_MAX, a chunk, and a few windows.
    """
    for hole in holes:
        if hole.dtype.name not in STORED_AS:
            raise FormatError(where, f"moments does not decode {hole.dtype.name}")
    heads = _read_head(holes, chunks, where)
    sizes = [_halves(head, hole.count // head.cols) for head, hole in zip(heads, holes, strict=True)]
    halves = _Halves(chunks, sum(sizes), where)
    for head, hole in zip(heads, holes, strict=True):
        for block in _tensor(head, hole.count // head.cols, halves):
            yield to_storage(block, hole.dtype)
    halves.end()


def _tensor(head: Moments, rows: int, halves: _Halves) -> Iterator[F32]:
    mean = halves.take(head.cols)
    components = halves.take(head.components * head.cols).reshape(head.components, head.cols)
    height = max(1, WINDOW // head.cols)
    for row in range(0, rows, height):
        block = min(height, rows - row)
        scores = halves.take(block * head.components).reshape(block, head.components, 1)
        # More than one segment of columns only where a row is longer than a window: then a block is one row.
        for col in range(0, head.cols, WINDOW):
            segment = slice(col, col + WINDOW)
            out = np.empty((block, mean[segment].size), np.float32)
            out[...] = mean[segment]
            product = np.empty_like(out)
            for number in range(head.components):
                np.multiply(scores[:, number], components[number, segment], out=product)
                out += product
            flat = out.reshape(-1)
            if head.mean or head.deviation:
                first = row * head.cols + col
                flat += generator.normal(head.rng_seed, first, flat.size, head.mean, head.deviation)
            if head.threshold:
                flat[np.abs(flat) < np.float32(head.threshold)] = 0
            yield flat


def _halves(head: Moments, rows: int) -> int:
    """Return how many float16 numbers a hole has: its mean row, its components, its scores."""
    return head.cols + head.components * (head.cols + rows)


def _read_head(holes: Sequence[Hole], chunks: Iterator[memoryview], where: str) -> list[Moments]:
    chunk = next(chunks, None)
    if chunk is None:
        raise FormatError(where, "its head is missing")
    coded = Cursor(chunk, f"{where}: head")
    packing = coded.uint(1, "packing")
    size = coded.varint("size", limit=CHUNK_DECODED_MAX)
    head = Cursor(unpack(packing, coded.take(coded.remaining, "head"), size, coded.where), coded.where)
    moments = [_read_moments(head, hole) for hole in holes]
    head.end()
    return moments


def _read_moments(head: Cursor, hole: Hole) -> Moments:
    cols = head.varint("columns", limit=SIDE_MAX, least=1)
    if hole.count % cols:
        raise FormatError(head.where, f"{cols} columns do not divide {hole.count:,} elements")
    components = head.varint("components", limit=min(FACTORS_MAX, cols, hole.count // cols))
    if 4 * components * cols > FACTOR_BYTES_MAX:
        raise LimitError(f"{head.where}: components [B]", 4 * components * cols, FACTOR_BYTES_MAX)
    rng_seed = head.varint("seed", limit=RNG_SEED_MAX)
    mean, deviation, threshold = head.f32("mean"), head.f32("deviation"), head.f32("threshold")
    for name, value in (("mean", abs(mean)), ("deviation", deviation), ("threshold", threshold)):
        if value != 0 and not _LEAST <= value <= _MOST:
            raise FormatError(head.where, f"a {name} of {value} is not valid")
    return Moments(cols, components, rng_seed, mean, deviation, threshold)


class _Halves:
    """Float16 numbers in order, whichever chunk they stand in."""

    def __init__(self, chunks: Iterator[memoryview], count: int, where: str) -> None:
        self._chunks, self._left, self._where = chunks, count, where
        self._chunk: npt.NDArray[np.float16] = np.empty(0, np.float16)

    def take(self, count: int) -> F32:
        """Return the next `count` numbers, exact in float32."""
        out, done = np.empty(count, np.float32), 0
        while done < count:
            if not self._chunk.size:
                self._chunk = self._next()
            part = self._chunk[: count - done]
            out[done : done + part.size] = part
            done, self._chunk = done + part.size, self._chunk[part.size :]
        return out

    def end(self) -> None:
        if next(self._chunks, None) is not None:
            raise FormatError(self._where, "it has more chunks than its tensors need")

    def _next(self) -> npt.NDArray[np.float16]:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise FormatError(self._where, f"its chunks end {2 * self._left:,} bytes early")
        count = min(self._left, CHUNK_DECODED_MAX // 2)
        self._left -= count
        values = np.ascontiguousarray(unshuffle(chunk, 2 * count, self._where)).view("<f2")
        if not np.isfinite(values).all():
            raise FormatError(self._where, "a component or score is not a number")
        return values
