"""Bytes as SPEC.md writes them, made with the standard library alone.

Nothing here comes from the runtime or the exporter: otherwise a mistake that both make would pass every test.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field


def u8(value: int) -> bytes:
    return bytes([value])


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def i32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def varint(value: int) -> bytes:
    """Return LEB128 of any size: an attack may need one that no reader accepts."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def string(text: str) -> bytes:
    return varint(len(text.encode())) + text.encode()


# Protobuf, for skeletons.


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def block(tag: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return varint(tag << 3 | 2) + varint(len(raw)) + raw


# Packings.


def deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def lzma1(data: bytes, dictionary_log2: int = 12) -> bytes:
    """Return raw LZMA without the two property bytes: lc 3, lp 0, pb 2, whose byte is 93."""
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << dictionary_log2, "lc": 3, "lp": 0, "pb": 2}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


LZMA_PROPERTIES = (2 * 5 + 0) * 9 + 3


# Symbol streams.


@dataclass
class Table:
    """The frequencies of the symbols from `first` on, and that of the escape."""

    first: int
    frequencies: Sequence[int]
    escape: int | None = None

    def slots(self) -> dict[int, tuple[int, int]]:
        """Return frequency and cumulative frequency of each symbol byte that occurs."""
        found = [0] * 256
        for place, frequency in enumerate(self.frequencies):
            found[(self.first + place) % 256] = frequency
        if self.escape:
            found[0x80] += self.escape
        return {symbol: (found[symbol], sum(found[:symbol])) for symbol in range(256) if found[symbol]}


@dataclass
class Matrix:
    """The values of a matrix as rows of integers, and its fields in the head."""

    values: Sequence[Sequence[int]]
    low_bits: int = 0
    step: float | None = None
    row_steps: bytes | None = None
    row_classes: bytes | None = None
    col_classes: bytes | None = None
    col_steps: bytes | None = None
    delay: int | None = None
    buckets: bool = False
    symbols: list[tuple[int, int]] = field(init=False)
    """The class and the symbol byte of each coded element."""
    low: list[int] = field(init=False)
    escaped: list[int] = field(init=False)
    bits: list[tuple[int, int]] = field(init=False)
    """Of each coded element of buckets, the number of bits below its symbol, and these."""

    def __post_init__(self) -> None:
        rows = self.row_classes or bytes([1] * len(self.values))
        cols = self.col_classes or bytes([1] * len(self.values[0]))
        self.symbols, self.low, self.escaped, self.bits = [], [], [], []
        for row, row_class in zip(self.values, rows, strict=True):
            for value, col_class in zip(row, cols, strict=True):
                if not row_class or not col_class:
                    continue
                high = value >> self.low_bits
                self.low.append(value & ((1 << self.low_bits) - 1))
                largest, width = (1 << 18) - 1 if self.buckets else 127, 0
                if self.step is not None and not -largest <= high <= largest:
                    self.escaped.append(high)
                    high = 0x80
                elif self.buckets:
                    width = max(0, abs(high).bit_length() - 4)
                    self.bits.append((width, abs(high) & ((1 << width) - 1)))
                    i = 8 * width + (abs(high) >> width) if abs(high) >= 8 else abs(high)
                    high = i if high > 0 else -i
                if self.buckets and high == 0x80:
                    self.bits.append((0, 0))
                self.symbols.append((row_class + col_class - 2, high & 0xFF))

    def planes(self) -> list[bytes]:
        """Return the planes of the low bits: bytes while eight bits are left, then single bits."""
        out = [bytes(low >> 8 * place & 0xFF for low in self.low) for place in range(self.low_bits // 8)]
        for bit in range(self.low_bits // 8 * 8, self.low_bits):
            packed = bytearray(-(-len(self.low) // 8))
            for place, low in enumerate(self.low):
                packed[place // 8] |= (low >> bit & 1) << place % 8
            out.append(bytes(packed))
        return out


def bits_of(parts: Sequence[tuple[int, int]]) -> bytes:
    """Return the record "bits" of numbers, each with its width before it."""
    joined, at = 0, 0
    for width, value in parts:
        joined, at = joined | value << at, at + width
    data = joined.to_bytes((at + 7) // 8, "little")
    return varint(len(data)) + data


def rans(symbols: Sequence[tuple[int, int]], tables: Sequence[Table], lanes: int) -> tuple[list[int], list[int]]:
    """Return states and words of (class, symbol) pairs, coded from the last to the first."""
    states, words = rans_places(symbols, tables, lanes)
    return states, [word for _, word in words]


def rans_places(
    symbols: Sequence[tuple[int, int]], tables: Sequence[Table], lanes: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return states and words, each word with the number of the symbol behind which it is taken."""
    slots = [table.slots() for table in tables]
    states, words = [1 << 16] * lanes, []
    for place in range(len(symbols) - 1, -1, -1):
        number_of_class, symbol = symbols[place]
        frequency, start = slots[number_of_class][symbol]
        state = states[place % lanes]
        if state >= frequency << 20:
            words.append((place, state & 0xFFFF))
            state >>= 16
        states[place % lanes] = (state // frequency << 12) + state % frequency + start
    return states, words[::-1]
