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
    """Reads fields off the front of `data`; every read past the end or over a limit is a FormatError.

    `where` names the place for error messages ("header, TENSORS").
    """

    def __init__(self, data: bytes | memoryview, where: str) -> None:
        self._data = memoryview(data).cast("B")
        self._pos, self._size = 0, len(self._data)
        self.where = where

    @property
    def remaining(self) -> int:
        return self._size - self._pos

    def take(self, size: int, field: str) -> memoryview:
        """The next `size` bytes, as a view: nothing is copied."""
        start = self._pos
        if size > self._size - start:
            raise FormatError(self.where, f"{field} ends {size - self.remaining:,} bytes past the end")
        self._pos = start + size
        return self._data[start : start + size]

    def uint(self, size: int, field: str) -> int:
        pos = self._pos
        if size == 1 and pos < self._size:
            self._pos = pos + 1
            return self._data[pos]
        return int.from_bytes(self.take(size, field), "little")

    def f32(self, field: str) -> float:
        value: float = struct.unpack("<f", self.take(4, field))[0]
        return value

    def varint(self, field: str, *, limit: int, least: int = 0) -> int:
        """An unsigned varint with `least <= value <= limit`."""
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
        """UTF-8 behind its length, `printable`, at most STRING_MAX bytes."""
        raw = self.take(self.varint(f"length of {field}", limit=STRING_MAX), field)
        try:
            text = str(raw, "utf-8")
        except UnicodeDecodeError:
            raise FormatError(self.where, f"{field} is not UTF-8") from None
        if not printable(text):
            raise FormatError(self.where, f"{field} holds characters that can't be printed")
        return text

    def end(self) -> None:
        if self.remaining:
            raise FormatError(self.where, f"{self.remaining:,} bytes too many")


def printable(text: str) -> bool:
    """Whether nothing in it could move a terminal's cursor or turn the direction of writing.

    Not `str.isprintable`: what that refuses grows smaller with each version of Unicode.
    """
    return _UNPRINTABLE.search(text) is None


def uint(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def f32(value: float) -> bytes:
    return struct.pack("<f", value)


def varint(value: int) -> bytes:
    if not 0 <= value < 1 << 63:
        raise ValueError(f"a varint holds 0 to 2**63 - 1, not {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > STRING_MAX or not printable(text):
        raise ValueError(f"a string holds at most {STRING_MAX} printable bytes: {text!r}")
    return varint(len(raw)) + raw
