"""Encode side of `raw`: byte planes, compressed where that pays.

What LZMA finds in tables and filter banks is worth its time, and nobody knows before it was tried. So it is tried, and
the bytes that it is given are counted: the time of a stream is bounded, whatever its size, and the same weights always
give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_runtime.codecs.encode.packing import PROPERTIES, pack_lzma, properties
from seed_runtime.format import primitives
from seed_runtime.format.packing import Packed, pack_quickly, smallest
from seed_runtime.limits import CHUNK_DECODED_MAX

WORK_MAX: Final = 6 << 20
"""Bytes of a stream that LZMA is given at most, all settings together [B]: 1 to 4 s a MiB on one core."""
_TRIED: Final = 1 << 15
"""Bytes of a chunk, as they lie and by planes, on which settings are compared; the best of each then packs all [B]."""
_ALIGNED: Final = {
    2: (properties(0, 1, 1), properties(3, 1, 1)),
    4: (properties(0, 2, 2), properties(2, 2, 2)),
    8: (properties(0, 3, 3), properties(1, 3, 3)),
}
"""Settings for elements of 2, 4 and 8 bytes that lie as they are: a filter bank took 8 % less than with the others."""


@dataclass
class Work:
    """Bytes that LZMA may still be given [B]."""

    left: int = WORK_MAX

    def take(self, count: int) -> bool:
        """Take `count` bytes off what is left. Return False, and take none, where there are fewer."""
        if count > self.left:
            return False
        self.left -= count
        return True


def encode(data: bytes, width: int, *, work: Work | None = None) -> list[bytes]:
    """Code `data` as the chunks of one stream.

    Args:
        data: the tensors' bytes, one after the other.
        width: size of an element, whose bytes are coded as planes [B].
        work: what LZMA may be given; by default as much as a stream may.
    """
    work = work or Work()
    return [
        _chunk(data[start : start + CHUNK_DECODED_MAX], width, work) for start in range(0, len(data), CHUNK_DECODED_MAX)
    ]


def _chunk(data: bytes, width: int, work: Work) -> bytes:
    shuffled = {planes: _planes(data, planes) for planes in {1, width if len(data) % width == 0 else 1}}
    settings = {planes: (*PROPERTIES, *_ALIGNED.get(width, ())) if planes == 1 else PROPERTIES for planes in shuffled}
    is_long = len(data) > _TRIED
    tried = min(len(data), _TRIED) * sum(map(len, settings.values()))
    thorough = work.take(tried + (len(shuffled) * len(data) if is_long else 0))
    options = {}
    for planes, rows in shuffled.items():
        # Of few values, deflate's level 9 takes longer than LZMA and finds less.
        options[planes] = pack_quickly(rows, 9 if thorough and not is_long else 6)
        if thorough:
            packed = pack_lzma(rows[:_TRIED], settings[planes])
            if is_long:
                setting = packed[1][0]
                packed = pack_lzma(rows, [setting])
            options[planes] = smallest(options[planes], packed)
    return min((_header(packed, planes) + packed[1] for planes, packed in options.items()), key=len)


def _planes(data: bytes, planes: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, planes).T.tobytes() if planes > 1 else data


def _header(packed: Packed, planes: int) -> bytes:
    return primitives.uint(packed[0], 1) + primitives.uint(planes, 1)
