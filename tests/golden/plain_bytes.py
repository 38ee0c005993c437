"""Fields, holes and packings of SPEC.md, with the standard library alone, for the plain decoder."""

from __future__ import annotations

import lzma
import struct
import zlib
from dataclasses import dataclass
from math import prod

BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16} | {
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
}


class Bytes:
    """Takes fields from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        assert self.at + size <= len(self.data), "cut"
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.uint(1)) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def f32(self) -> float:
        return float(struct.unpack("<f", self.take(4))[0])


@dataclass
class Hole:
    dtype: int
    skip: int
    dims: list[int]
    name_digest: bytes = b""

    @property
    def count(self) -> int:
        return prod(self.dims)

    @property
    def size(self) -> int:
        return (self.count * BITS[self.dtype] + 7) // 8


def unpack(packing: int, data: bytes) -> bytes:
    if packing == 1:
        return zlib.decompress(data, -15)
    if packing == 2:
        pb, rest = divmod(data[0], 45)
        lp, lc = divmod(rest, 9)
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << data[1], "lc": lc, "lp": lp, "pb": pb}]
        return lzma.decompress(data[2:], lzma.FORMAT_RAW, filters=filters)
    assert packing == 0
    return data
