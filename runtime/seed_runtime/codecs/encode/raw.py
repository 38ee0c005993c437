"""Encode side of `raw`: byte planes, compressed where that pays."""

from __future__ import annotations

import numpy as np

from seed_runtime.codecs.encode.packing import pack
from seed_runtime.format import primitives
from seed_runtime.limits import CHUNK_DECODED_MAX

_THOROUGH_MAX = 1 << 17
"""Size of a chunk up to which LZMA is tried as well [B]: beyond, it takes seconds a MiB for a percent."""


def encode(data: bytes, width: int, *, thorough: bool = False) -> list[bytes]:
    """Code `data` as the chunks of one stream.

    Args:
        data: the tensors' bytes, one after the other.
        width: size of an element, whose bytes are coded as planes [B].
        thorough: try LZMA on every chunk.
    """
    return [
        _chunk(data[start : start + CHUNK_DECODED_MAX], width, thorough)
        for start in range(0, len(data), CHUNK_DECODED_MAX)
    ]


def _chunk(data: bytes, width: int, thorough: bool) -> bytes:
    options = []
    for planes in {1, width if len(data) % width == 0 else 1}:
        shuffled = np.frombuffer(data, np.uint8).reshape(-1, planes).T.tobytes() if planes > 1 else data
        packing, packed = pack(shuffled, thorough=thorough or len(data) <= _THOROUGH_MAX)
        options.append(primitives.uint(packing, 1) + primitives.uint(planes, 1) + packed)
    return min(options, key=len)
