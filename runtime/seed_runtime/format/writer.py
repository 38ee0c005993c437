"""Writes a seed: preamble, header, parts, chunks. The file appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from seed_runtime.format import wire
from seed_runtime.format.header import CHUNK_DIGEST_BYTES, Header, Stream, serialize
from seed_runtime.format.reader import MAGIC, PREAMBLE_BYTES, VERSION


def stream_of(codec: int, first: int, holes: int, chunks: Iterable[bytes]) -> Stream:
    """The header's record of `chunks`."""
    coded = list(chunks)
    digests = b"".join(hashlib.sha256(chunk).digest()[:CHUNK_DIGEST_BYTES] for chunk in coded)
    return Stream(codec, first, holes, tuple(len(chunk) for chunk in coded), digests)


def front(header: Header) -> bytes:
    """Preamble and header: all that stands before the parts."""
    data = serialize(header)
    size = PREAMBLE_BYTES + len(data) + header.body_size
    start = MAGIC + wire.uint(VERSION, 2) + wire.uint(0, 2) + wire.uint(len(data), 4) + wire.uint(size, 8)
    return start + hashlib.sha256(start + data).digest() + data


def write_seed(path: Path, header: Header, parts: Iterable[bytes], chunks: Iterable[bytes]) -> int:
    """Write the file, replacing an older one in one step; returns its size [B].

    `parts` and `chunks` are coded bytes in the header's order.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(front(header))
            for block in (*parts, *chunks):
                file.write(block)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def with_digest(header: Header, digest: bytes) -> Header:
    """The header once the assembled weights are known."""
    return replace(header, weights_digest=digest)
