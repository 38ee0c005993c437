"""Data behind the words of a chunk: the low bits of its elements, in planes, and escaped values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import U8, U32, Index
from seed_runtime.errors import FormatError
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import CHUNK_CODED_MAX, LOW_BITS_MAX

ESCAPE: Final = 0x80
"""The symbol whose value stands in the list of escapes."""
JOINED_BELOW: Final = 4096
"""Number of elements in a chunk below which a matrix's planes are packed together with those of other small ones."""
_BYTE_PLANES: Final = LOW_BITS_MAX // 8
"""Most planes of whole bytes of a matrix."""


class Escapes:
    """A chunk's escaped values: little-endian int32, to its end."""

    def __init__(self, payload: Cursor) -> None:
        if payload.remaining % 4:
            raise FormatError(payload.where, f"{payload.remaining} bytes of escapes are no int32s")
        self._values = np.frombuffer(payload.take(payload.remaining, "escapes"), "<i4").astype(np.int32)
        self._next, self._where = 0, payload.where

    @staticmethod
    def find(symbols: U8) -> Index:
        """Return the places of escapes among symbols."""
        return np.flatnonzero(symbols == ESCAPE)

    def take(self, count: int) -> npt.NDArray[np.int32]:
        """Return the next `count` values; FormatError where there are fewer."""
        self._next += count
        if self._next > self._values.size:
            raise FormatError(self._where, "its escapes end early")
        return self._values[self._next - count : self._next]

    def end(self) -> None:
        """Raise FormatError if values are left over."""
        if self._next != self._values.size:
            raise FormatError(self._where, f"{self._values.size - self._next} escapes are left over")


@dataclass(frozen=True)
class Span:
    """Elements `start` to `stop` of a matrix with low bits: those that a chunk holds."""

    low_bits: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    def plane_size(self, position: int) -> int:
        """Return the size of its plane at a position, 0 where it has none [B].

        Positions 0 to 2 are whole bytes, those behind them single bits, low bits first in both.
        """
        if position < _BYTE_PLANES:
            return self.size if position < self.low_bits // 8 else 0
        return (self.size + 7) // 8 if position - _BYTE_PLANES < self.low_bits % 8 else 0


class LowPlanes:
    """The bits below the symbols of a `Span`, eight elements to a byte of the planes of single bits."""

    def __init__(self, span: Span) -> None:
        """Make it without its planes, which are appended in the order of their positions."""
        self._start = span.start
        self._byte_planes: list[U8] = []
        self._bit_planes: list[U8] = []

    def append(self, position: int, plane: U8) -> None:
        """Take the next plane."""
        (self._byte_planes if position < _BYTE_PLANES else self._bit_planes).append(plane)

    def low(self, start: int, stop: int) -> U32:
        """Return the low bits of elements `start` to `stop` of the matrix, `(stop - start,)`."""
        start, stop = start - self._start, stop - self._start
        low = np.zeros(stop - start, np.uint32)
        octets = low.view(np.uint8).reshape(-1, 4)
        for place, plane in enumerate(self._byte_planes):
            octets[:, place] = plane[start:stop]
        shift = 8 * len(self._byte_planes)
        for place, plane in enumerate(self._bit_planes):
            bits = np.unpackbits(plane[start // 8 : (stop + 7) // 8], bitorder="little")
            low |= bits[start % 8 :][: stop - start].astype(np.uint32) << np.uint32(shift + place)
        return low


def read_planes(payload: Cursor, spans: Mapping[int, Span]) -> dict[int, LowPlanes]:
    """Read the planes of a chunk: those of small matrices, joined by position, then those of the others.

    Args:
        payload: at the first plane.
        spans: the matrices with low bits that have elements in the chunk, by number, in order.
    """
    planes = {number: LowPlanes(span) for number, span in spans.items()}
    small = [number for number, span in spans.items() if span.size < JOINED_BELOW]
    for group in (small, *([number] for number, span in spans.items() if span.size >= JOINED_BELOW)):
        for position in range(_BYTE_PLANES + 7):
            sizes = {number: size for number in group if (size := spans[number].plane_size(position))}
            if not sizes:
                continue
            block, end = _plane(payload, sum(sizes.values())), 0
            for number, size in sizes.items():
                planes[number].append(position, block[end : end + size])
                end += size
    return planes


def _plane(payload: Cursor, size: int) -> U8:
    packing = payload.uint(1, "packing of a plane")
    coded = payload.varint("size of a plane", limit=CHUNK_CODED_MAX) if packing else size
    return np.frombuffer(unpack(packing, payload.take(coded, "plane"), size, payload.where), np.uint8)
