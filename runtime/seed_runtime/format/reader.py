"""Reads a seed front to back, from a file or a pipe, and hands on only bytes whose digest has been checked.

Order is the file's own: `open_seed` reads preamble and header, then `part_bytes` for each part, then `chunks` for
each stream, then `finish`. At most one chunk or part is held at a time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from seed_runtime.errors import DigestError, FormatError, LimitError, NotASeedError, UnsupportedError
from seed_runtime.format import primitives
from seed_runtime.format.header import CHUNK_DIGEST_BYTES, SECTION_FRONT_BYTES, Header, Part, Stream, parse
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import FILE_MAX, HEADER_MAX

MAGIC: Final = b"\x89SEED\r\n\x1a"
"""As PNG's: a first byte that is no text, line ends that a careless transfer would change, end-of-file for DOS."""
VERSION: Final = 1
PREAMBLE_BYTES: Final = 56
SIGNED_START: Final = primitives.uint(VERSION, 2) + primitives.uint(0, 2) + b"SG"
"""Version, flags, and what keeps a signed header apart from anything else that will ever be signed."""
_DIGEST_OFFSET = 24


class SeedReader:
    """A seed whose header has been read and checked. Not thread-safe: it is one position in one file."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        self._source, self.name = source, name
        preamble = self._read(PREAMBLE_BYTES, "preamble")
        if bytes(preamble[: len(MAGIC)]) != MAGIC:
            raise NotASeedError(name, "this is not a seed")
        cursor = Cursor(preamble[len(MAGIC) :], "preamble")
        version, flags = cursor.uint(2, "version"), cursor.uint(2, "flags")
        header_size, self.file_size = cursor.uint(4, "header size"), cursor.uint(8, "file size")
        self.digest: bytes = bytes(cursor.take(32, "digest"))
        """SHA-256 over the preamble before it and the header, and through the header's digests over every byte."""
        if header_size > HEADER_MAX:
            raise LimitError(f"{name}: header size", header_size, HEADER_MAX)
        if self.file_size > FILE_MAX:
            raise LimitError(f"{name}: file size", self.file_size, FILE_MAX)
        self._check_size_on_disk()
        data = self._read(header_size, "header")
        computed = hashlib.sha256(preamble[:_DIGEST_OFFSET])
        computed.update(data)
        if computed.digest() != self.digest:
            raise DigestError(f"{name}: header", self.digest, computed.digest())
        # Behind the digest, and at places that no version will move: a flipped bit is damage, not "a newer version".
        if version != VERSION or flags:
            raise UnsupportedError(
                f"{name}: format version {version} (flags {flags:#x}) is newer than this runtime, which knows "
                f"version {VERSION}; update it: pip install -U seed-runtime"
            )
        body_size = self.file_size - PREAMBLE_BYTES - header_size
        self.header: Header = parse(data, body_size)
        self.header_size = header_size
        self.signed: bytes | None = None
        """What the signature signs; None where there is no signature."""
        if self.header.signature is not None:
            before = header_size - SECTION_FRONT_BYTES - len(self.header.signature)
            self.signed = SIGNED_START + data[:before]

    def part_bytes(self, part: Part) -> bytes | memoryview:
        """The unpacked bytes of the next part, at most PART_RAW_MAX."""
        where = f"part {part.kind:#06x}"
        data = self._read(part.size, where)
        computed = hashlib.sha256(data).digest()
        if computed != part.digest:
            raise DigestError(where, part.digest, computed)
        return unpack(part.packing, data, part.raw_size, where)

    def skip_part(self, part: Part) -> None:
        """Check an optional part that this runtime has no use for, and forget it."""
        data = self._read(part.size, f"part {part.kind:#06x}")
        if (computed := hashlib.sha256(data).digest()) != part.digest:
            raise DigestError(f"part {part.kind:#06x}", part.digest, computed)

    def chunks(self, index: int, stream: Stream) -> Iterator[memoryview]:
        """The coded chunks of the next stream."""
        for number, size in enumerate(stream.sizes):
            where = f"stream {index}, chunk {number}"
            data = self._read(size, where)
            computed = hashlib.sha256(data).digest()[:CHUNK_DIGEST_BYTES]
            if computed != stream.digest(number):
                raise DigestError(where, stream.digest(number), computed)
            yield data

    def finish(self) -> None:
        """The file ends here: trailing bytes are refused."""
        if self._source.read(1):
            raise FormatError(self.name, "bytes follow behind its end")

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
                if where == "preamble" and not bytes(buffer[: min(have, 8)]) == MAGIC[: min(have, 8)]:
                    raise NotASeedError(self.name, "this is not a seed")
                raise FormatError(f"{self.name}: {where}", f"it ends after {have:,} of {size:,} bytes")
            have += got
        return view
