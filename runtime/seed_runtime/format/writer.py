"""Writes a seed: preamble, header, parts, chunks. The file appears whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

from seed_runtime.format import preamble
from seed_runtime.format.header import Header, Stream, serialize
from seed_runtime.format.preamble import SIGNED_START
from seed_runtime.format.sections.streams import CHUNK_DIGEST_BYTES
from seed_runtime.system.files import atomic_write


def stream_of(codec: int, first: int, holes: int, chunks: Iterable[bytes]) -> Stream:
    """Return the header's record of a stream.

    Args:
        codec: the codec's number.
        first: the first hole that the stream fills.
        holes: how many holes it fills.
        chunks: its coded chunks, in order.
    """
    coded = list(chunks)
    digests = b"".join(hashlib.sha256(chunk).digest()[:CHUNK_DIGEST_BYTES] for chunk in coded)
    return Stream(codec, first, holes, tuple(len(chunk) for chunk in coded), digests)


def front(header: Header) -> bytes:
    """Return preamble and header: all that stands before the parts."""
    data = serialize(header)
    return preamble.serialize(data, header.body_size) + data


def write_seed(
    path: Path,
    header: Header,
    parts: Iterable[bytes],
    chunks: Iterable[bytes],
    before_publishing: Callable[[bytes], None] = lambda digest: None,
) -> int:
    """Write the file, replacing an older one in one step.

    Args:
        path: the file.
        header: of the seed.
        parts: coded parts, in the header's order.
        chunks: coded chunks, in the header's order.
        before_publishing: called with the seed's digest once all bytes are written, before the path names them; what
            it raises leaves the older file.

    Returns:
        Its size [B].
    """
    with atomic_write(path) as file:
        size = write_into(file, header, parts, chunks)
        before_publishing(digest_of(header))
        return size


def digest_of(header: Header) -> bytes:
    """Return the digest of the seed with this header."""
    data = serialize(header)
    size = preamble.PREAMBLE_BYTES + len(data) + header.body_size
    return preamble.Preamble(len(data), size, bytes(32)).digest_of(data)


def write_into(file: IO[bytes], header: Header, parts: Iterable[bytes], chunks: Iterable[bytes]) -> int:
    """Write the same bytes as `write_seed` into an open file; returns how many."""
    return sum(file.write(block) for block in itertools.chain([front(header)], parts, chunks))


def to_sign(header: Header) -> bytes:
    """Return what the signature of a seed with this header signs; its own place in the header is left out."""
    return SIGNED_START + serialize(replace(header, signature=None))
