"""Data behind the words of a chunk: the low bits of its elements, in planes, and escaped values."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import U8, U32, Index
from seed_runtime.errors import FormatError
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import CHUNK_CODED_MAX

ESCAPE: Final = 0x80
"""The symbol whose value stands in the list of escapes."""


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


class LowPlanes:
    """The bits below the symbols of elements `start` to `stop` of a matrix, in one chunk.

    Planes, low ones first: bytes while 8 bits are left, then single bits, eight elements to a byte.
    """

    def __init__(self, payload: Cursor, low_bits: int, start: int, stop: int) -> None:
        self._start, size = start, stop - start
        self._byte_planes = [_plane(payload, size) for _ in range(low_bits // 8)]
        self._bit_planes = [_plane(payload, (size + 7) // 8) for _ in range(low_bits % 8)]

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


def _plane(payload: Cursor, size: int) -> U8:
    packing = payload.uint(1, "packing of a plane")
    coded = payload.varint("size of a plane", limit=CHUNK_CODED_MAX) if packing else size
    return np.frombuffer(unpack(packing, payload.take(coded, "plane"), size, payload.where), np.uint8)
