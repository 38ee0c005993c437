"""Writes a seed: preamble, header, parts, chunks. The file appears whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

from seed_runtime.format import primitives
from seed_runtime.format.header import CHUNK_DIGEST_BYTES, Header, Stream, serialize
from seed_runtime.format.reader import MAGIC, PREAMBLE_BYTES, SIGNED_START, VERSION
from seed_runtime.system.files import atomic_write


def stream_of(codec: int, first: int, holes: int, chunks: Iterable[bytes]) -> Stream:
    """The header's record of `chunks`."""
    coded = list(chunks)
    digests = b"".join(hashlib.sha256(chunk).digest()[:CHUNK_DIGEST_BYTES] for chunk in coded)
    return Stream(codec, first, holes, tuple(len(chunk) for chunk in coded), digests)


def front(header: Header) -> bytes:
    """Preamble and header: all that stands before the parts."""
    data = serialize(header)
    size = PREAMBLE_BYTES + len(data) + header.body_size
    start = (
        MAGIC
        + primitives.uint(VERSION, 2)
        + primitives.uint(0, 2)
        + primitives.uint(len(data), 4)
        + primitives.uint(size, 8)
    )
    return start + hashlib.sha256(start + data).digest() + data


def write_seed(path: Path, header: Header, parts: Iterable[bytes], chunks: Iterable[bytes]) -> int:
    """Write the file, replacing an older one in one step; returns its size [B].

    `parts` and `chunks` are coded bytes in the header's order.
    """
    with atomic_write(path) as file:
        return write_into(file, header, parts, chunks)


def write_into(file: IO[bytes], header: Header, parts: Iterable[bytes], chunks: Iterable[bytes]) -> int:
    """The same bytes, into an open file; how many."""
    return sum(file.write(block) for block in itertools.chain([front(header)], parts, chunks))


def to_sign(header: Header) -> bytes:
    """What the signature of a seed with this header signs; its own place in the header is left out."""
    return SIGNED_START + serialize(replace(header, signature=None))
