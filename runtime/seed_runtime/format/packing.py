"""Byte packings inside a seed: stored, raw deflate, raw LZMA with a capped dictionary (SPEC.md, "Packings").

Nothing is allocated beyond the raw size that the caller has checked against its limit.
"""

from __future__ import annotations

import zlib
from typing import Final

from seed_runtime.errors import FormatError, LimitError, too_new
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import LZMA_DICTIONARY_MAX

STORED: Final = 0
DEFLATE: Final = 1
LZMA: Final = 2

Packed = tuple[int, bytes]
"""The number of a packing and the packed bytes."""

_LC_LP_PB_MAX = (4 * 5 + 4) * 9 + 8
_DICTIONARY_LOG2_MIN = 12  # liblzma's own least


def unpack(packing: int, data: memoryview, raw_size: int, where: str) -> bytes | memoryview:
    """Unpack all of `data` to exactly `raw_size` bytes.

    Args:
        packing: STORED, DEFLATE or LZMA.
        data: the packed bytes.
        raw_size: bytes that must come out; the caller has checked it against its limit.
        where: names the place in error messages.

    Raises:
        FormatError: other bytes than `raw_size` come out, or `data` is damaged or not used up.
        UnsupportedError: the packing is newer than this runtime.
    """
    if packing == STORED:
        raw: bytes | memoryview = data
    elif packing == DEFLATE:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than allowed shows an overlong stream without decoding it.
            raw = inflate.decompress(data, raw_size + 1)
        except zlib.error as error:
            raise FormatError(where, f"deflate: {error}") from None
        if not inflate.eof or inflate.unused_data:
            raise FormatError(where, f"the deflate stream does not end with its {raw_size:,} bytes")
    elif packing == LZMA:
        raw = _unlzma(data, raw_size, where)
    else:
        raise too_new(where, f"packing {packing}")
    if len(raw) != raw_size:
        raise FormatError(where, f"{len(raw):,} bytes unpacked, {raw_size:,} announced")
    return raw


def pack_quickly(data: bytes, level: int = 6) -> Packed:
    """Store or deflate `data`, whichever is smaller."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return smallest((STORED, data), (DEFLATE, encoder.compress(data) + encoder.flush()))


def smallest(*options: Packed) -> Packed:
    """Return the packing of the fewest bytes, the first of equal ones."""
    return min(options, key=lambda option: len(option[1]))


def lzma_filter(properties: int, dictionary_log2: int) -> dict[str, int]:
    """Return the filter of Python's `lzma` for the two property bytes of a packed block."""
    import lzma

    return {
        "id": lzma.FILTER_LZMA1,
        "dict_size": 1 << dictionary_log2,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
    }


def _unlzma(data: memoryview, raw_size: int, where: str) -> bytes:
    import lzma

    cursor = Cursor(data, where)
    properties, dictionary_log2 = cursor.uint(1, "LZMA properties"), cursor.uint(1, "LZMA dictionary")
    if properties > _LC_LP_PB_MAX or properties % 9 + properties // 9 % 5 > 4:
        raise FormatError(where, f"LZMA properties {properties} are not valid")
    if dictionary_log2 < _DICTIONARY_LOG2_MIN:
        raise FormatError(where, f"an LZMA dictionary of 2**{dictionary_log2} is not valid")
    if dictionary_log2 > LZMA_DICTIONARY_MAX.bit_length() - 1:
        raise LimitError(f"{where}: LZMA dictionary", 1 << min(dictionary_log2, 62), LZMA_DICTIONARY_MAX)
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma_filter(properties, dictionary_log2)])
    try:
        raw = decoder.decompress(cursor.take(cursor.remaining, "LZMA data"), raw_size + 1)
    except lzma.LZMAError as error:
        raise FormatError(where, f"LZMA: {error}") from None
    if len(raw) == raw_size and not decoder.eof and not decoder.needs_input:
        raw += decoder.decompress(b"", 1)  # lets the decoder see the end marker
    if not decoder.eof or decoder.unused_data:
        raise FormatError(where, f"the LZMA stream does not end with its {raw_size:,} bytes")
    return raw
