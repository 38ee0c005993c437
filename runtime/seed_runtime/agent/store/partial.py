"""Partial transfers: find out how much of a seed has arrived intact, and cut off the rest.

A transfer that was cut leaves the front of a seed; a power cut can leave zeros or old blocks behind it. Only bytes that
the seed's own digests confirm count, part by part and chunk by chunk. Of the rest of a cut chunk, up to
CHUNK_CODED_MAX, digests of blocks are given to the client, who has the whole seed to compare. At most one chunk or part
is held in memory at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from seed_runtime.errors import FormatError, UsageError
from seed_runtime.format import preamble
from seed_runtime.format.preamble import PREAMBLE_BYTES
from seed_runtime.limits import CHUNK_CODED_MAX
from seed_runtime.system.files import NotRegularError, open_regular

BLOCK: Final = 1 << 18
"""Size of a block of bytes that no digest of the seed confirms yet, in bytes: half of what a cut costs at most."""
_BLOCKS_MAX: Final = CHUNK_CODED_MAX // BLOCK

OnBytes = Callable[[int, int], None]
"""Progress callback: gets the number of bytes confirmed so far, and the size of the seed [B]."""


@dataclass(frozen=True)
class Front:
    """Content of a file's front. Sizes are in bytes; those that the header gives are None until it is complete."""

    have: int
    """Bytes confirmed by digests, from the beginning on."""
    file_size: int | None = None
    """Size of the whole seed."""
    weights_size: int | None = None
    """Size of its assembled weights."""

    @property
    def is_whole(self) -> bool:
        """True if all bytes of the seed are confirmed."""
        return self.have == self.file_size


def check(path: Path, digest: str, progress: OnBytes | None = None) -> Front:
    """Find out how much of the seed `digest` is at `path`. Nothing is changed.

    Raises:
        FileNotFoundError: there is no file.
        UnsupportedError: this runtime is too old for what the seed's header says.
    """
    with open_file(path, "rb") as file:
        return _check(file, path.name, digest, progress)


def is_whole(path: Path, digest: str) -> bool:
    """Return whether the file at `path` is exactly the seed `digest`, all bytes read."""
    try:
        with open_file(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            front = _check(file, path.name, digest, None)
    except OSError:
        return False
    return front.is_whole and size == front.file_size


def holds_whole(descriptor: int, digest: str) -> bool:
    """Return whether an open file, which is readable, is exactly the seed `digest`, all bytes read."""
    with open(os.dup(descriptor), "rb", buffering=0) as file:
        file.seek(0)
        front = _check(cast(BinaryIO, file), "seed", digest, None)
        return front.is_whole and os.fstat(descriptor).st_size == front.file_size


def trim(path: Path, digest: str, progress: OnBytes | None = None) -> tuple[Front, list[str]]:
    """Cut the file after its last whole block, on the disk as well.

    Returns:
        What is confirmed, and the SHA-256 of each block after that in hexadecimal.
    """
    with open_file(path, "r+b") as file:
        front = _check(file, path.name, digest, progress)
        file.seek(front.have)
        tail: list[str] = []
        while len(tail) < _BLOCKS_MAX and len(block := file.read(BLOCK)) == BLOCK:
            tail.append(hashlib.sha256(block).hexdigest())
    cut(path, front.have + BLOCK * len(tail))
    return front, tail


def cut(path: Path, size: int) -> None:
    """Cut the file to `size` bytes, on the disk as well.

    Raises:
        UsageError: it has fewer.
    """
    with open_file(path, "r+b") as file:
        have = os.fstat(file.fileno()).st_size
        if have < size:
            raise UsageError(f"{path.name} has {have} bytes; have can be at most that")
        if have != size:
            file.truncate(size)
            os.fsync(file.fileno())


def looks_whole(path: Path, digest: str) -> bool:
    """Return whether size and header are those of the seed `digest`. Quick and without NumPy: chunks aren't read."""
    try:
        with open_file(path, "rb") as file:
            try:
                front = preamble.parse(file.read(PREAMBLE_BYTES), path.name)
            except FormatError:
                return False
            if front.digest.hex() != digest or front.digest_of(file.read(front.header_size)) != front.digest:
                return False
            return os.fstat(file.fileno()).st_size == front.file_size
    except OSError:
        return False


def open_file(path: Path, mode: str) -> BinaryIO:
    """Open a regular file, unbuffered.

    Raises:
        FormatError: it is a link, or not a regular file.
    """
    try:
        return open_regular(path, writable="+" in mode)
    except NotRegularError as error:
        raise FormatError(path.name, str(error.strerror)) from None


class _Unsized:
    """A file without a length, since the reader refuses a file that is cut before it reads any of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.readinto = file.readinto  # type: ignore[attr-defined]


def _check(file: BinaryIO, name: str, digest: str, progress: OnBytes | None) -> Front:
    if os.fstat(file.fileno()).st_size < PREAMBLE_BYTES:
        return Front(0)
    from seed_runtime.format.reader import SeedReader  # brings NumPy

    try:
        reader = SeedReader(cast(BinaryIO, _Unsized(file)), name)
    except FormatError:
        return Front(0)
    if reader.digest.hex() != digest:
        return Front(0)
    have = PREAMBLE_BYTES + reader.header_size
    try:
        for part in reader.header.parts:
            reader.skip_part(part)
            have += part.size
        for index, stream in enumerate(reader.header.streams):
            for chunk in reader.chunks(index, stream):
                have += len(chunk)
                if progress is not None:
                    progress(have, reader.file_size)
    except FormatError:
        pass  # cut or damaged from here on
    return Front(have, reader.file_size, reader.header.weights.size)
