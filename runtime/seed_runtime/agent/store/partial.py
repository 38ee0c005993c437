"""Finds out how much of a seed is there and right, and cuts off what isn't.

A transfer that was cut leaves the front of a seed; a power cut can leave zeros or old blocks behind it. What counts is
what the seed's own digests confirm, part by part and chunk by chunk. The rest of a chunk that was cut, up to
CHUNK_CODED_MAX, is told in blocks, for whoever has the whole seed to compare. At most one chunk or part is held in
memory at a time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from seed_runtime.errors import FormatError, UsageError
from seed_runtime.format import preamble
from seed_runtime.format.preamble import PREAMBLE_BYTES
from seed_runtime.limits import CHUNK_CODED_MAX

BLOCK: Final = 1 << 18
"""Bytes of a block of what no digest of the seed confirms yet: what a cut costs at most, twice."""
_BLOCKS_MAX: Final = CHUNK_CODED_MAX // BLOCK

OnBytes = Callable[[int, int], None]
"""Called with the bytes found right so far, and all of them."""


@dataclass(frozen=True)
class Front:
    """What the front of a file holds. Sizes in bytes; None where the header isn't there whole."""

    have: int
    """Confirmed by digests, from the beginning on."""
    file_size: int | None = None
    weights_size: int | None = None

    @property
    def whole(self) -> bool:
        return self.have == self.file_size


def check(path: Path, digest: str, progress: OnBytes | None = None) -> Front:
    """How much of the seed `digest` stands at `path`; nothing is changed.

    FileNotFoundError where nothing does, UnsupportedError where this runtime is too old for what its header says.
    """
    with open_file(path, "rb") as file:
        return _check(file, path.name, digest, progress)


def is_whole(path: Path, digest: str) -> bool:
    """Whether all bytes of the seed `digest`, and no others, stand at `path`."""
    try:
        with open_file(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            front = _check(file, path.name, digest, None)
    except OSError:
        return False
    return front.whole and size == front.file_size


def trim(path: Path, digest: str, progress: OnBytes | None = None) -> tuple[Front, list[str]]:
    """Cut the file behind the last whole block, on the disk as well.

    Returns what is confirmed, and SHA-256 of each block behind it in hexadecimal.
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
    """Cut the file to `size` bytes, on the disk as well. UsageError where it has fewer."""
    with open_file(path, "r+b") as file:
        have = os.fstat(file.fileno()).st_size
        if have < size:
            raise UsageError(f"{path.name} has {have} bytes; have can be at most that")
        if have != size:
            file.truncate(size)
            os.fsync(file.fileno())


def looks_whole(path: Path, digest: str) -> bool:
    """Whether size and header are those of the seed `digest`: quick, and without NumPy; chunks are not read."""
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
    """Open a regular file that is no link; FormatError for anything else."""
    flags = os.O_RDWR if "+" in mode else os.O_RDONLY
    if path.is_symlink():
        raise FormatError(path.name, "it is a link")
    # Not blocking, or a named pipe would hold us for ever.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormatError(path.name, "it is no file")
    return cast(BinaryIO, os.fdopen(descriptor, mode, buffering=0))


class _Unsized:
    """A file that doesn't tell its length: the reader refuses a file that is cut before it reads any of it."""

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
