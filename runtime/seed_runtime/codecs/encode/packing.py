"""Packs bytes in whichever way of the format is smallest: stored, raw deflate or raw LZMA."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from typing import Final

from seed_runtime.format.packing import LZMA, Packed, lzma_filter, pack_quickly, smallest
from seed_runtime.limits import LZMA_DICTIONARY_MAX


def properties(lc: int, lp: int, pb: int) -> int:
    """Return LZMA's settings as the byte of SPEC.md, "Packings".

    Args:
        lc: bits of the byte before that choose a literal's table.
        lp: bits of the position that choose it, at most 4 with `lc`: 2 for elements of 4 bytes.
        pb: bits of the position that choose all other tables.
    """
    return (pb * 5 + lp) * 9 + lc


PROPERTIES: Final = (properties(0, 0, 0), properties(1, 0, 0), properties(3, 0, 0), properties(3, 0, 2))
"""Settings that are tried of bytes of any kind: hardly any context, text-like, and liblzma's default."""
_TRIED_WHOLE: Final = 1 << 20
"""Size up to which all of `data` is packed with each setting; of more, samples of as much in all tell which [B].

Of a forest of 13 MB they told the best one, in a fourteenth of the time.
"""
_SAMPLES: Final = 16
"""Number of these samples."""


def pack(data: bytes, *, thorough: bool = True) -> Packed:
    """Pack `data` in the smallest way.

    Args:
        data: any bytes.
        thorough: try LZMA as well, which is 50 times slower than deflate on noise.
    """
    quick = pack_quickly(data, 9 if thorough else 6)
    if not thorough:
        return quick
    settings: Sequence[int] = PROPERTIES
    if len(data) > _TRIED_WHOLE:
        _, packed = pack_lzma(_sampled(data), PROPERTIES)
        settings = (packed[0],)
    return smallest(quick, pack_lzma(data, settings))


def pack_lzma(data: bytes, settings: Sequence[int]) -> Packed:
    """Pack `data` with the one of LZMA's settings that takes the fewest bytes."""
    return smallest(*((LZMA, _lzma(data, setting)) for setting in settings))


def _sampled(data: bytes) -> bytes:
    """Return _SAMPLES parts of `data`, evenly spread, as one."""
    size, gap = _TRIED_WHOLE // _SAMPLES, len(data) // _SAMPLES
    return b"".join(data[start * gap : start * gap + size] for start in range(_SAMPLES))


def _lzma(data: bytes, setting: int) -> bytes:
    largest = LZMA_DICTIONARY_MAX.bit_length() - 1
    dictionary_log2 = min(max(len(data).bit_length(), 12), largest)
    encoder = lzma.LZMACompressor(
        lzma.FORMAT_RAW, filters=[{**lzma_filter(setting, dictionary_log2), "preset": 9 | lzma.PRESET_EXTREME}]
    )
    return bytes([setting, dictionary_log2]) + encoder.compress(data) + encoder.flush()
