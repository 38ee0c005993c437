"""`raw`: the tensors' bytes as they are, in planes, compressed where that saves bytes (SPEC.md, "Codec 1: raw")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from seed_runtime.codecs.arrays import Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.errors import FormatError
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import Hole
from seed_runtime.limits import CHUNK_DECODED_MAX

WIDTHS = (1, 2, 4, 8)
"""Numbers of planes: the bytes of an element."""


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, _cores: int = 1
) -> Iterator[Values]:
    """Yield the bytes of all holes, one after the other, a chunk at a time (see codec.py)."""
    left = sum(hole.size for hole in holes)
    while left:
        chunk = next(chunks, None)
        if chunk is None:
            raise FormatError(where, f"its chunks end {left:,} bytes early")
        size = min(left, CHUNK_DECODED_MAX)
        yield unshuffle(chunk, size, where)
        left -= size
    if next(chunks, None) is not None:
        raise FormatError(where, "it has more chunks than its tensors need")


def unshuffle(chunk: memoryview, size: int, where: str) -> Values:
    """Unpack a chunk and interleave its byte planes.

    Raises:
        FormatError: it doesn't make exactly `size` bytes.
    """
    cursor = Cursor(chunk, where)
    packing, width = cursor.uint(1, "packing"), cursor.uint(1, "width")
    if width not in WIDTHS or size % width:
        raise FormatError(where, f"planes of width {width} do not make {size:,} bytes")
    data = np.frombuffer(unpack(packing, cursor.take(cursor.remaining, "data"), size, where), np.uint8)
    return data.reshape(width, -1).T.ravel() if width > 1 else data
