"""Rebuilds the weights file of a seed, front to back, in memory that does not grow with the model.

Everything is decoded in the order of the file, so a seed can be assembled while it arrives.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_runtime import skeletons
from seed_runtime.codecs import by_number
from seed_runtime.errors import DigestError, DiskSpaceError, FormatError
from seed_runtime.format.header import Header, Hole, Stream
from seed_runtime.format.reader import SeedReader
from seed_runtime.system.files import write_synced

Chunks = Iterator[memoryview]
Progress = Callable[[int, int], None]
"""Called with the bytes of the weights file done so far, and all of them."""


def working_bytes(header: Header) -> int:
    """Bytes that assembling needs beyond the program itself: an upper bound that the header alone gives."""
    chunk = max((max(stream.sizes) for stream in header.streams), default=0)
    part = max(2 * part.raw_size + part.size for part in header.parts)
    # A chunk as read, its words widened to 32 bits, its planes unpacked; then tables, side arrays and windows,
    # which the limits bound (limits.py) and the largest public models use in full; then what each tensor holds.
    tensors = max((stream.holes for stream in header.streams), default=0)
    return max(part, 3 * chunk + _FIXED) + _PER_TENSOR * tensors


_FIXED: Final = 12 << 20
_PER_TENSOR: Final = 1600
"""Objects and small arrays of a matrix: 32,768 of one element each peaked 43 MiB above the rest."""


class WeightsWriter:
    """Puts decoded bytes into their holes: appends, inserts the zeros between holes, hashes all of it."""

    def __init__(self, holes: tuple[Hole, ...], write: Callable[[memoryview], object]) -> None:
        self._holes, self._write = iter(holes), write
        self._hash = hashlib.sha256()
        self._left = 0
        self.written = 0

    def append(self, values: npt.NDArray[Any]) -> None:
        """Take the next values, in whatever portions they come."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        while data:
            if not self._left:
                hole = next(self._holes, None)
                if hole is None:
                    raise FormatError("streams", "they decode to more bytes than the weights file has")
                self._emit(memoryview(bytes(hole.skip)))
                self._left = hole.size
            self._emit(data[: self._left])
            taken = min(len(data), self._left)
            self._left -= taken
            data = data[taken:]

    def digest(self) -> bytes:
        """SHA-256 of the whole weights file, the zeros between holes included."""
        return self._hash.digest()

    def _emit(self, data: memoryview) -> None:
        if data:
            self._hash.update(data)
            self._write(data)
            self.written += len(data)


def decode_streams(
    header: Header,
    chunks_of: Callable[[int, Stream], Chunks],
    write: Callable[[memoryview], object],
    progress: Progress | None = None,
) -> bytes:
    """Decode all streams into `write`, in file order; returns the digest of what was written."""
    writer = WeightsWriter(header.holes, write)
    for index, stream in enumerate(header.streams):
        where = f"stream {index}"
        holes = header.holes[stream.first : stream.first + stream.holes]
        expected = writer.written + sum(hole.skip + hole.size for hole in holes)
        for window in by_number(stream.codec, where).decode(holes, chunks_of(index, stream), where):
            if writer.written + window.nbytes > expected:
                raise FormatError(where, "it decodes to more bytes than its holes take")
            writer.append(window)
            if progress is not None:
                progress(writer.written, header.weights.size)
        if writer.written != expected:
            raise FormatError(where, f"it fills {writer.written:,} of {expected:,} bytes")
    return writer.digest()


def assemble_into(reader: SeedReader, folder: Path, progress: Progress | None = None) -> None:
    """Write the model and its weights into `folder`, which exists and is the caller's to rename or to remove.

    Both files are on the disk, and checked, when this returns. Any error leaves half-written files behind in
    `folder` and nowhere else.
    """
    header = reader.header
    kind, data = skeletons.of(header), reader.part_bytes(header.skeleton)
    skeletons.check_holes(kind.scan(data), header.holes)
    need_disk(folder, header.weights.size + len(data))
    try:
        write_synced(folder / kind.model_file, data)
        del data
        for part in header.parts[1:]:
            reader.skip_part(part)
        # Unbuffered: windows go to the page cache at once, and no second copy of them counts as ours.
        with open(folder / kind.weights_file, "wb", buffering=0) as file:
            computed = decode_streams(header, reader.chunks, _whole(file.write), progress)
            os.fsync(file.fileno())
        reader.finish()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(folder).free
            raise DiskSpaceError(str(folder), header.weights.size + header.skeleton.raw_size, free) from None
        raise
    if computed != header.weights.digest:
        raise DigestError("assembled weights", header.weights.digest, computed)


def check_only(reader: SeedReader, progress: Progress | None = None) -> None:
    """All the checks of `assemble_into`, with nothing written."""
    header = reader.header
    info = skeletons.of(header).scan(reader.part_bytes(header.skeleton))
    skeletons.check_holes(info, header.holes)
    for part in header.parts[1:]:
        reader.skip_part(part)
    computed = decode_streams(header, reader.chunks, lambda data: None, progress)
    reader.finish()
    if computed != header.weights.digest:
        raise DigestError("assembled weights", header.weights.digest, computed)


def is_assembled(folder: Path, header: Header) -> bool:
    """Whether the files of this seed's model are in `folder`, by their names and sizes."""
    try:
        return all((folder / name).stat().st_size == size for name, size in skeletons.of(header).sizes(header).items())
    except OSError:
        return False


def need_disk(folder: Path, size: int) -> None:
    """DiskSpaceError unless `folder` has room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskSpaceError(str(folder), size, free)


def _whole(write: Callable[[memoryview], int | None]) -> Callable[[memoryview], None]:
    """An unbuffered write may take less than it was given."""

    def write_all(data: memoryview) -> None:
        while data:
            data = data[write(data) or 0 :]

    return write_all
