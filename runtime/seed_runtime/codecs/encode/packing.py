"""Packs bytes in whichever way of the format is smallest: stored, raw deflate or raw LZMA."""

from __future__ import annotations

import lzma
import zlib

from seed_runtime.format.packing import DEFLATE, LZMA, STORED, lzma_filter
from seed_runtime.limits import LZMA_DICTIONARY_MAX

_PROPERTIES = (0, 3, 2 * 45 + 3)
"""Settings lc, lp and pb of LZMA in one byte, to be tried: no context at all, text-like, and liblzma's default."""


def pack(data: bytes, *, thorough: bool = True) -> tuple[int, bytes]:
    """Pack `data` in the smallest way.

    Args:
        data: any bytes.
        thorough: try LZMA as well, which is 50 times slower than deflate on noise.

    Returns:
        The number of the packing and the packed bytes.
    """
    options = [(STORED, data), (DEFLATE, _deflate(data, 9 if thorough else 6))]
    if thorough:
        options += [(LZMA, _lzma(data, properties)) for properties in _PROPERTIES]
    return min(options, key=lambda option: len(option[1]))


def _deflate(data: bytes, level: int) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def _lzma(data: bytes, properties: int) -> bytes:
    largest = LZMA_DICTIONARY_MAX.bit_length() - 1
    dictionary_log2 = min(max(len(data).bit_length(), 12), largest)
    encoder = lzma.LZMACompressor(
        lzma.FORMAT_RAW, filters=[{**lzma_filter(properties, dictionary_log2), "preset": 9 | lzma.PRESET_EXTREME}]
    )
    return bytes([properties, dictionary_log2]) + encoder.compress(data) + encoder.flush()
