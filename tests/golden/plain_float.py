"""Rounding to float types by integers and `struct`, for the plain decoder."""

from __future__ import annotations

import struct


def rounded(value: float) -> float:
    """Round to the nearest float32, ties to even.

    Of a sum or product of two float32 the double before is exact, or rounded so finely that a second rounding gives
    the same (53 >= 2 * 24 + 2 bits).
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def stored_as(dtype: int, value: float) -> bytes:
    """Round a float32 to an element of this type, to the nearest, ties to even."""
    if dtype == 1:
        return struct.pack("<f", value)
    if dtype == 11:
        return struct.pack("<d", value)
    if dtype == 10:
        try:
            return struct.pack("<e", value)
        except OverflowError:
            return b"\x00\x7c" if value > 0 else b"\x00\xfc"
    assert dtype == 16
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    upper, rest = divmod(bits, 1 << 16)
    return struct.pack("<H", upper + (rest > 0x8000 or (rest == 0x8000 and upper & 1)))


def number_of(dtype: int, data: bytes) -> float:
    """Return an element of a float type as a number; none is rounded."""
    if dtype == 16:
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    return float(struct.unpack({1: "<f", 10: "<e", 11: "<d"}[dtype], data)[0])
