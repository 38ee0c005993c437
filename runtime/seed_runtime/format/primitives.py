"""Primitive fields of a seed: little-endian integers, varints, strings; read with checks, written plainly.

A varint is unsigned LEB128 in its shortest form, below 2**63 (SPEC.md, "Primitive types").
"""

from __future__ import annotations

import re
import struct

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import STRING_MAX

_VARINT_BYTES_MAX = 9
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Cursor:
    """Reads fields off the front of `data`; every read past the end or over a limit is a FormatError."""

    def __init__(self, data: bytes | memoryview, where: str) -> None:
        """Begin at the front.

        Args:
            data: the fields.
            where: names the place in error messages, such as "header, HOLES".
        """
        self._data = memoryview(data).cast("B")
        self._pos, self._size = 0, len(self._data)
        self.where = where

    @property
    def remaining(self) -> int:
        """Bytes that were not read yet."""
        return self._size - self._pos

    def take(self, size: int, field: str) -> memoryview:
        """Read the next `size` bytes, as a view: nothing is copied."""
        start = self._pos
        if size > self._size - start:
            raise FormatError(self.where, f"{field} ends {size - self.remaining:,} bytes past the end")
        self._pos = start + size
        return self._data[start : start + size]

    def uint(self, size: int, field: str) -> int:
        """Read an unsigned integer of `size` bytes."""
        pos = self._pos
        if size == 1 and pos < self._size:
            self._pos = pos + 1
            return self._data[pos]
        return int.from_bytes(self.take(size, field), "little")

    def f32(self, field: str) -> float:
        """Read a float32."""
        value: float = struct.unpack("<f", self.take(4, field))[0]
        return value

    def varint(self, field: str, *, limit: int, least: int = 0) -> int:
        """Read an unsigned varint with `least <= value <= limit`."""
        pos = self._pos
        if pos < self._size and (value := self._data[pos]) < 0x80:
            # Most have one byte, and a seed has tens of thousands: a tenth of the time of those that follow.
            self._pos = pos + 1
        else:
            value = self._long_varint(field)
        if value > limit:
            raise LimitError(f"{self.where}: {field}", value, limit)
        if value < least:
            raise FormatError(self.where, f"{field} is {value}, at least {least} is needed")
        return value

    def _long_varint(self, field: str) -> int:
        value = 0
        for place in range(_VARINT_BYTES_MAX):
            if self._pos == self._size:
                raise FormatError(self.where, f"{field} ends 1 bytes past the end")
            byte = self._data[self._pos]
            self._pos += 1
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if place and byte == 0:
                    raise FormatError(self.where, f"{field} is not in its shortest form")
                return value
        raise FormatError(self.where, f"{field} is longer than {_VARINT_BYTES_MAX} bytes")

    def string(self, field: str) -> str:
        """Read a `printable` text: UTF-8 of at most STRING_MAX bytes behind its length."""
        raw = self.take(self.varint(f"length of {field}", limit=STRING_MAX), field)
        try:
            text = str(raw, "utf-8")
        except UnicodeDecodeError:
            raise FormatError(self.where, f"{field} is not UTF-8") from None
        if not printable(text):
            raise FormatError(self.where, f"{field} holds characters that can't be printed")
        return text

    def end(self) -> None:
        """Raise FormatError if bytes are left over."""
        if self.remaining:
            raise FormatError(self.where, f"{self.remaining:,} bytes too many")


def printable(text: str) -> bool:
    """Return whether nothing in a text could move a terminal's cursor or turn the direction of writing.

    Not `str.isprintable`: what that refuses grows smaller with each version of Unicode.
    """
    return _UNPRINTABLE.search(text) is None


def uint(value: int, size: int) -> bytes:
    """Return the bytes of an unsigned integer of `size` bytes."""
    return value.to_bytes(size, "little")


def f32(value: float) -> bytes:
    """Return the bytes of a float32."""
    return struct.pack("<f", value)


def varint(value: int) -> bytes:
    """Return a varint in its shortest form; ValueError outside of 0 to 2**63 - 1."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"a varint holds 0 to 2**63 - 1, not {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(text: str) -> bytes:
    """Return a text behind its length; ValueError where `Cursor.string` would refuse it."""
    raw = text.encode()
    if len(raw) > STRING_MAX or not printable(text):
        raise ValueError(f"a string holds at most {STRING_MAX} printable bytes: {text!r}")
    return varint(len(raw)) + raw
