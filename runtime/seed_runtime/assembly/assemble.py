"""Rebuilds a seed's model, front to back, in memory that does not grow with the model.

Everything is decoded in the order of the seed, so one can be assembled while it arrives. Where the decoded bytes go is
up to the layout of the skeleton's kind (skeletons/layout.py).
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_runtime import skeletons
from seed_runtime.codecs import CODECS, BaseWeights, by_number
from seed_runtime.codecs.windows import BESIDE_BYTES, BESIDE_LEAST
from seed_runtime.errors import DigestError, DiskSpaceError, FormatError
from seed_runtime.format.header import Header, Hole, Stream
from seed_runtime.format.parts import file_of
from seed_runtime.format.reader import SeedReader
from seed_runtime.skeletons import SkeletonInfo
from seed_runtime.system.sync import sync_files

Chunks = Iterator[memoryview]
Progress = Callable[[int, int], None]
"""Progress callback: gets the size of the weights that are done so far, and of all weights [B]."""

_FIXED: Final = 12 << 20
"""Tables, side arrays and windows [B]: the limits bound them, and the largest public models use them in full."""
_PER_TENSOR: Final = 1600
"""Objects and small arrays of a matrix [B]: 32,768 of one element each peaked 43 MiB above the rest."""


def working_bytes(header: Header) -> int:
    """Return the bytes that assembling needs beyond the program itself: an upper bound by the header alone."""
    chunk = max((max(stream.sizes) for stream in header.streams), default=0)
    part = max(2 * part.raw_size + part.size for part in header.parts)
    tensors = max((stream.holes for stream in header.streams), default=0)
    # A chunk as read, its words widened to 32 bits, its planes unpacked.
    return max(part, 3 * chunk + _FIXED + _held_bytes(header)) + _PER_TENSOR * tensors


def _held_bytes(header: Header) -> int:
    """Return the most that a codec holds for one stream; nothing for codecs that only a later runtime decodes."""
    streams = zip(header.streams, _holes_of_streams(header), strict=True)
    held = (
        CODECS[stream.codec].held_bytes([hole.count for hole in holes])
        for stream, holes in streams
        if stream.codec in CODECS
    )
    return max(held, default=0)


def beside_bytes(header: Header) -> int:
    """Return the bytes that assembling on more than one core needs beyond that; 0 where it takes but one."""
    symbols = max((sum(hole.count for hole in holes) for holes in _holes_of_streams(header)), default=0)
    if symbols < BESIDE_LEAST:
        return 0
    # The next chunk, and the words of two where the process beside reads them.
    return 3 * max(max(stream.sizes) for stream in header.streams) + BESIDE_BYTES


def _holes_of_streams(header: Header) -> Iterator[tuple[Hole, ...]]:
    return (header.holes[stream.first : stream.first + stream.holes] for stream in header.streams)


class WeightsWriter:
    """Puts decoded bytes into their holes: skips what stands between holes, and hashes the whole weights file."""

    def __init__(
        self,
        holes: tuple[Hole, ...],
        write: Callable[[memoryview], object],
        skip: Callable[[int], object] | None = None,
    ) -> None:
        """Begin before the first hole.

        Args:
            holes: all holes of the seed.
            write: takes the bytes of the holes, in their order.
            skip: called before each hole with the size of the gap before it [B]; None writes zeros.
        """
        self._holes, self._write = iter(holes), write
        self._skip = skip or (lambda size: write(memoryview(bytes(size))) if size else None)
        self._hash = hashlib.sha256()
        self._left = 0
        self.written = 0
        """Bytes of the weights file so far, gaps included."""

    def append(self, values: npt.NDArray[Any]) -> None:
        """Take the next values, cut anywhere.

        Raises:
            FormatError: there are more than all holes take.
        """
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        while data:
            if not self._left:
                hole = next(self._holes, None)
                if hole is None:
                    raise FormatError("streams", "they decode to more bytes than the weights file has")
                self._skip(hole.skip)
                self._hash.update(bytes(hole.skip))
                self._left, self.written = hole.size, self.written + hole.skip
            taken = data[: self._left]
            self._hash.update(taken)
            self._write(taken)
            self._left, self.written = self._left - len(taken), self.written + len(taken)
            data = data[len(taken) :]

    def digest(self) -> bytes:
        """Return SHA-256 of the weights file so far, the zeros between holes included."""
        return self._hash.digest()


def decode_streams(
    header: Header,
    chunks_of: Callable[[int, Stream], Chunks],
    write: Callable[[memoryview], object],
    progress: Progress | None = None,
    *,
    skip: Callable[[int], object] | None = None,
    base: BaseWeights | None = None,
    cores: int = 1,
) -> bytes:
    """Decode all streams, in the order of the seed.

    Args:
        header: of the seed.
        chunks_of: gives the coded chunks of a stream by its number.
        write: takes the bytes of the holes, in their order.
        progress: called after each window.
        skip: called before each hole with the size of the gap before it [B]; None writes zeros.
        base: the base's weights, whose holes are counted as the header's, for streams of differences.
        cores: how many may be used; more than one takes `beside_bytes` more.

    Returns:
        SHA-256 of the weights file that the bytes make.

    Raises:
        FormatError: a stream doesn't fill exactly its holes, or breaks a rule of its codec.
        UnsupportedError: a codec is newer than this runtime.
    """
    writer = WeightsWriter(header.holes, write, skip)
    for index, (stream, holes) in enumerate(zip(header.streams, _holes_of_streams(header), strict=True)):
        where = f"stream {index}"
        expected = writer.written + sum(hole.skip + hole.size for hole in holes)
        of_stream = None if base is None else _StreamBase(base, stream.first)
        decoded = by_number(stream.codec, where).decode(holes, chunks_of(index, stream), where, of_stream, cores)
        # Closed at once: a process beside must not wait for the garbage collection.
        with closing(decoded) if isinstance(decoded, Generator) else nullcontext():
            for window in decoded:
                if writer.written + window.nbytes > expected:
                    raise FormatError(where, "it decodes to more bytes than its holes take")
                writer.append(window)
                if progress is not None:
                    progress(writer.written, header.weights.size)
        if writer.written != expected:
            raise FormatError(where, f"it fills {writer.written:,} of {expected:,} bytes")
    return writer.digest()


def assemble_into(
    reader: SeedReader,
    folder: Path,
    progress: Progress | None = None,
    base: BaseWeights | None = None,
    check: Callable[[SkeletonInfo], object] | None = None,
    info: SkeletonInfo | None = None,
    cores: int = 1,
) -> None:
    """Write the model's files into `folder`. They are checked when this returns, and `sync_assembled` flushes them.

    Any error leaves half-written files behind in `folder` and nowhere else.

    Args:
        reader: of a seed, behind its header.
        folder: exists and is empty; the caller renames or removes it.
        progress: called after each decoded window.
        base: the base's weights, for a seed of differences.
        check: called with what the skeleton says, before anything is written; raises FormatError for other sections
            that contradict it.
        info: what the skeleton says, where a skeleton of the same digest was scanned and checked before; None to do it.
        cores: as for `decode_streams`.

    Raises:
        FormatError: the seed is damaged.
        UnsupportedError: it needs a newer runtime.
        DiskSpaceError: the files don't fit on the disk.
    """
    header = reader.header
    kind, data = skeletons.of(header), reader.part_bytes(header.skeleton)
    if info is None:
        info = kind.scan(data)
        kind.layout.check(info, header.holes)
        if check is not None:
            check(info)
    size = sum(kind.sizes(header).values())
    need_disk(folder, size)
    with _disk_space(folder, size):
        with kind.layout.begin(folder, data) as output:
            del data, info
            for part in header.parts[1:]:
                name = file_of(part.kind)
                if name is None:
                    reader.skip_part(part)
                else:
                    (folder / name).write_bytes(reader.part_bytes(part))
            computed = decode_streams(
                header, reader.chunks, output.write, progress, skip=output.skip, base=base, cores=cores
            )
        reader.finish()
    if computed != header.weights.digest:
        raise DigestError("assembled weights", header.weights.digest, computed)


def sync_assembled(folder: Path, header: Header) -> None:
    """Flush the files that `assemble_into` wrote, so that they survive a power cut.

    Raises:
        DiskSpaceError: the disk is full after all; some file systems only find out now.
    """
    with _disk_space(folder, sum(skeletons.of(header).sizes(header).values())):
        sync_files(folder)


@contextmanager
def _disk_space(folder: Path, size: int) -> Iterator[None]:
    """Raise DiskSpaceError where `size` bytes don't fit into `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(str(folder), size, shutil.disk_usage(folder).free) from None
        raise


def check_only(
    reader: SeedReader,
    progress: Progress | None = None,
    base: BaseWeights | None = None,
    check: Callable[[SkeletonInfo], object] | None = None,
    cores: int = 1,
) -> None:
    """Make all the checks of `assemble_into`, with nothing written."""
    header, kind = reader.header, skeletons.of(reader.header)
    info = kind.scan(reader.part_bytes(header.skeleton))
    kind.layout.check(info, header.holes)
    if check is not None:
        check(info)
    del info
    for part in header.parts[1:]:
        if file_of(part.kind) is None:
            reader.skip_part(part)
        else:
            reader.part_bytes(part)
    computed = decode_streams(
        header, reader.chunks, lambda data: None, progress, skip=lambda size: None, base=base, cores=cores
    )
    reader.finish()
    if computed != header.weights.digest:
        raise DigestError("assembled weights", header.weights.digest, computed)


def is_assembled(folder: Path, header: Header) -> bool:
    """Return whether the files of this seed's model are in `folder`, by their names and sizes."""
    try:
        return all((folder / name).stat().st_size == size for name, size in skeletons.of(header).sizes(header).items())
    except OSError:
        return False


def need_disk(folder: Path, size: int) -> None:
    """Raise DiskSpaceError unless `folder` has room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskSpaceError(str(folder), size, free)


class _StreamBase:
    """The base's weights as one stream's decoder sees them: holes are counted from the stream's first one."""

    def __init__(self, base: BaseWeights, first: int) -> None:
        self._base, self._first = base, first

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        return self._base.read(self._first + hole, start, stop)
