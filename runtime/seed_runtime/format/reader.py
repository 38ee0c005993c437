"""Reads a seed front to back, from a file or a pipe, and hands on only bytes whose digest has been checked.

The order is the file's own: a `SeedReader` reads preamble and header, then `part_bytes` or `skip_part` follow for each
part, then `chunks` for each stream, then `finish`. At most one chunk or part is held at a time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from seed_runtime.errors import DigestError, FormatError
from seed_runtime.format import preamble
from seed_runtime.format.header import SECTION_FRONT_BYTES, Header, Part, Stream, build_on, parse
from seed_runtime.format.packing import unpack
from seed_runtime.format.parts import KINDS
from seed_runtime.format.preamble import PREAMBLE_BYTES, SIGNED_START
from seed_runtime.format.sections.streams import CHUNK_DIGEST_BYTES


class SeedReader:
    """A seed whose header has been read and checked. Not thread-safe: it is one position in one file."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        """Read preamble and header.

        Args:
            source: the seed, at its beginning.
            name: the file, for messages.

        Raises:
            FormatError: it is no seed, cut or damaged.
            UnsupportedError: it is made for a newer runtime.
        """
        self._source, self.name = source, name
        front = preamble.parse(self._read(PREAMBLE_BYTES, "preamble"), name)
        self.header_size, self.file_size = front.header_size, front.file_size
        self.digest = front.digest
        """SHA-256 over the preamble before it and the header, and through the header's digests over every byte."""
        self._check_size_on_disk()
        data = self._read(front.header_size, "header")
        front.check(data, name)
        self.header: Header = parse(data, front.body_size)
        self._parts_from: SeedReader | None = None
        self.signed: bytes | None = None
        """Message that the signature signs; None where there is no signature."""
        if self.header.signature is not None:
            before = front.header_size - SECTION_FRONT_BYTES - len(self.header.signature)
            self.signed = SIGNED_START + data[:before]

    def build_on(self, base: SeedReader) -> None:
        """Read a seed that has a base: its parts are the base's where it has none.

        Args:
            base: of the base, before its first part; it is not used behind the last one.

        Raises:
            WrongBaseError: the seed is made for another base.
            FormatError: it contradicts its base.
        """
        shares = not self.header.has_parts
        self.header = build_on(self.header, base.header, base.digest, (self.name, base.name))
        self._parts_from = base if shares else None

    def part_bytes(self, part: Part) -> bytes | memoryview:
        """Return the unpacked bytes of the next part, at most PART_RAW_MAX, with the end that the seed leaves out."""
        if self._parts_from is not None:
            return self._parts_from.part_bytes(part)
        data, tail = self._checked_part(part), self._tail(part)
        begin = unpack(part.packing, data, part.raw_size - len(tail), _where(part))
        return b"".join((begin, tail)) if tail else begin

    def skip_part(self, part: Part) -> None:
        """Check the next part, which this runtime has no use for, without unpacking it."""
        if self._parts_from is not None:
            self._parts_from.skip_part(part)
        else:
            self._checked_part(part)

    def chunks(self, index: int, stream: Stream) -> Iterator[memoryview]:
        """Yield the coded chunks of the next stream, each read when it is asked for."""
        for number, size in enumerate(stream.sizes):
            where = f"stream {index}, chunk {number}"
            data = self._read(size, where)
            computed = hashlib.sha256(data).digest()[:CHUNK_DIGEST_BYTES]
            if computed != stream.digest(number):
                raise DigestError(where, stream.digest(number), computed)
            yield data

    def head(self, index: int, stream: Stream) -> memoryview | None:
        """Return the first chunk of the next stream, None where it has none, and pass over the others unread.

        What comes from a pipe is read, but not checked.
        """
        head = next(self.chunks(index, stream), None)
        left = sum(stream.sizes[1:])
        if self._source.seekable():
            self._source.seek(left, os.SEEK_CUR)
        else:
            for size in stream.sizes[1:]:
                self._read(size, f"stream {index}")
        return head

    def finish(self) -> None:
        """Raise FormatError unless the file ends here."""
        if self._source.read(1):
            raise FormatError(self.name, "bytes follow behind its end")

    def _tail(self, part: Part) -> bytearray:
        """Return the end of a part that the seed leaves out."""
        tail, kind = bytearray(), KINDS.get(part.kind)
        if part.names is None or kind is None or kind.tail is None:
            return tail
        for piece in kind.tail(part.names, self.header.holes):
            tail += piece
            if len(tail) > part.raw_size:
                raise FormatError(_where(part), f"what it says of its tensors takes more than {part.raw_size:,} bytes")
        return tail

    def _checked_part(self, part: Part) -> memoryview:
        where = _where(part)
        data = self._read(part.size, where)
        if (computed := hashlib.sha256(data).digest()) != part.digest:
            raise DigestError(where, part.digest, computed)
        return data

    def _check_size_on_disk(self) -> None:
        # A cut file is named before its header is parsed; a pipe shows its length only at its end.
        try:
            status = os.fstat(self._source.fileno())
        except (OSError, AttributeError):
            return
        if stat.S_ISREG(status.st_mode) and status.st_size != self.file_size:
            raise FormatError(self.name, f"it has {status.st_size:,} bytes of {self.file_size:,}")

    def _read(self, size: int, where: str) -> memoryview:
        buffer = bytearray(size)
        view, have = memoryview(buffer), 0
        while have < size:
            got = self._source.readinto(view[have:])  # type: ignore[attr-defined]
            if not got:
                if where == "preamble" and not have:
                    raise FormatError(self.name, "it is empty")
                if where == "preamble" and not preamble.begins_like_a_seed(view[:have]):
                    raise preamble.not_a_seed(view[:have], self.name)
                raise FormatError(f"{self.name}: {where}", f"it ends after {have:,} of {size:,} bytes")
            have += got
        return view


def _where(part: Part) -> str:
    return f"part {part.kind:#06x}"
