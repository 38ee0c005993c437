"""Section STREAMS: which codec fills which holes, and the index of its chunks."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import HOLES
from seed_runtime.format.sections.section import Parsed, Section
from seed_runtime.format.sections.weights import WEIGHTS
from seed_runtime.limits import (
    ADAPTIVE_STREAMS_MAX,
    CHUNK_CODED_MAX,
    CHUNKS_MAX,
    STREAM_SHARE,
    STREAMS_FREE,
    STREAMS_MAX,
    TENSORS_MAX,
)

CHUNK_DIGEST_BYTES: Final = 16
"""Bytes of SHA-256 that stand for a chunk: an attack needs a second preimage, and 32 would cost a small seed 1 %."""

_ADAPTIVE: Final = 8
"""The codec whose streams take long in proportion to their bytes."""


@dataclass(frozen=True)
class Stream:
    """One codec's chunks, which fill `holes` consecutive holes from `first` on."""

    codec: int
    first: int
    holes: int
    sizes: Sequence[int]
    """Size of each chunk as it stands in the seed [B]."""
    digests: bytes
    """Digests of the chunks, CHUNK_DIGEST_BYTES for each of `sizes`."""

    def digest(self, chunk: int) -> bytes:
        """Return the digest of a chunk by its number in the stream."""
        return self.digests[chunk * CHUNK_DIGEST_BYTES : (chunk + 1) * CHUNK_DIGEST_BYTES]


def _parse(cursor: Cursor, parsed: Parsed) -> tuple[Stream, ...]:
    most = min(STREAMS_MAX, STREAMS_FREE + parsed[WEIGHTS.id].size // STREAM_SHARE)
    streams, first, chunks = [], 0, 0
    for _ in range(cursor.varint("number of streams", limit=most)):
        codec = cursor.uint(1, "codec")
        taken = cursor.varint("holes of a stream", limit=TENSORS_MAX, least=1)
        count = cursor.varint("chunks of a stream", limit=CHUNKS_MAX - chunks, least=1)
        sizes = array("Q", (cursor.varint("chunk size", limit=CHUNK_CODED_MAX) for _ in range(count)))
        digests = bytes(cursor.take(count * CHUNK_DIGEST_BYTES, "chunk digests"))
        streams.append(Stream(codec, first, taken, sizes, digests))
        first, chunks = first + taken, chunks + count
    cursor.end()  # before the sum: where bytes are left over, they are the cause
    if (slow := sum(stream.codec == _ADAPTIVE for stream in streams)) > ADAPTIVE_STREAMS_MAX:
        raise LimitError(f"{cursor.where}: streams of codec {_ADAPTIVE}", slow, ADAPTIVE_STREAMS_MAX)
    if HOLES.id in parsed:
        check_filled(streams, len(parsed[HOLES.id]))
    return tuple(streams)


def check_filled(streams: Sequence[Stream], holes: int) -> None:
    """Raise FormatError unless the streams fill exactly as many holes as there are."""
    filled = sum(stream.holes for stream in streams)
    if filled != holes:
        raise FormatError("header, STREAMS", f"the streams fill {filled} holes, there are {holes}")


def _serialize(streams: tuple[Stream, ...]) -> bytes:
    return primitives.varint(len(streams)) + b"".join(
        primitives.uint(stream.codec, 1)
        + primitives.varint(stream.holes)
        + primitives.varint(len(stream.sizes))
        + b"".join(map(primitives.varint, stream.sizes))
        + stream.digests
        for stream in streams
    )


STREAMS: Final = Section(0x0005, "STREAMS", _parse, _serialize, required=True)
