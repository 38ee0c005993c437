"""Write seeds of any header with the runtime's own writer, for parts and codecs that only a test has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from seed_runtime.format.header import Header, Hole, ModelInfo, Part, WeightsInfo
from seed_runtime.format.writer import front, stream_of


def stored_part(kind: int, data: bytes) -> Part:
    """Return the header's record of a part that is stored as it is."""
    return Part(kind, 0, len(data), len(data), hashlib.sha256(data).digest())


def write_seed_bytes(
    parts: Sequence[tuple[int, bytes]], holes: Sequence[Hole], codec: int, chunks: Sequence[bytes], weights: bytes
) -> bytes:
    """Return a seed of stored parts and one stream.

    Args:
        parts: kind and bytes of each part.
        holes: all are filled by the stream.
        codec: number of the stream's codec.
        chunks: its chunks.
        weights: what it decodes to, the zeros between holes included.
    """
    header = Header(
        model=ModelInfo("test", 1, 1, 1, len(weights)),
        weights=WeightsInfo(len(weights), hashlib.sha256(weights).digest(), 0),
        parts=tuple(stored_part(kind, data) for kind, data in parts),
        holes=tuple(holes),
        streams=(stream_of(codec, 0, len(holes), chunks),),
    )
    return front(header) + b"".join(data for _, data in parts) + b"".join(chunks)
