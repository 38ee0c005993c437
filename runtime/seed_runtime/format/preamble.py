"""The first 56 bytes of a seed (SPEC.md, "Preamble"), which stay the same in all later versions.

Imports no NumPy: a process that only looks at a stored file, such as the agent on a device, need not load it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import DigestError, FormatError, LimitError, NotASeedError, UnsupportedError
from seed_runtime.limits import FILE_MAX, HEADER_MAX
from seed_runtime.system import wrong_files

MAGIC: Final = b"\x89SEED\r\n\x1a"
"""First bytes of a seed, chosen as PNG's: a first byte that is no text, line ends that a careless transfer would
change, end-of-file for DOS."""
VERSION: Final = 1
"""The version of the format that this runtime reads and writes."""
DIGEST: Final = re.compile("[0-9a-f]{64}")
"""The digest of a seed in hexadecimal, which names a stored version and an assembled copy."""
PREAMBLE_BYTES: Final = 56
"""Size of the preamble [B]."""
SIGNED_START: Final = struct.pack("<HH", VERSION, 0) + b"SG"
"""First bytes of a signed message: version, flags, and two bytes that no other kind of message will have."""

_LAYOUT: Final = struct.Struct("<8sHHIQ32s")
_HASHED: Final = struct.Struct("<8sHHIQ")
"""The fields before the digest, which the digest covers together with the header."""


@dataclass(frozen=True)
class Preamble:
    """The fields of a preamble, its sizes within their limits."""

    header_size: int
    """Size of the header [B]."""
    file_size: int
    """Size of the whole seed [B]."""
    digest: bytes
    """SHA-256 over the fields before it and the header, and by the header's digests over every byte of the seed."""
    version: int = VERSION
    flags: int = 0

    @property
    def body_size(self) -> int:
        """Size of parts and chunks; negative where the sizes contradict each other [B]."""
        return self.file_size - PREAMBLE_BYTES - self.header_size

    def digest_of(self, header: bytes | memoryview) -> bytes:
        """Compute what `digest` must be for these header bytes."""
        computed = hashlib.sha256(_HASHED.pack(MAGIC, self.version, self.flags, self.header_size, self.file_size))
        computed.update(header)
        return computed.digest()

    def check(self, header: bytes | memoryview, name: str) -> None:
        """Check the digest, then version and flags: a flipped bit is damage, not "a newer version".

        Raises:
            DigestError: the digest is not that of these header bytes.
            UnsupportedError: the seed is of a version that came after this runtime.
        """
        if (computed := self.digest_of(header)) != self.digest:
            raise DigestError(f"{name}: header", self.digest, computed)
        if self.version != VERSION or self.flags:
            raise UnsupportedError(
                f"{name}: format version {self.version} (flags {self.flags:#x}) is newer than this runtime, which "
                f"knows version {VERSION}; update it: pip install -U seed-runtime"
            )


def begins_like_a_seed(data: bytes | memoryview) -> bool:
    """Return whether `data`, possibly cut, agrees with the magic as far as it goes."""
    return MAGIC.startswith(bytes(data[: len(MAGIC)]))


def not_a_seed(data: bytes | memoryview, name: str) -> NotASeedError:
    """Return the error for a file that begins with `data`, which says what the file is where that can be seen."""
    found = wrong_files.recognise(data)
    if found is None:
        return NotASeedError(name, "this is not a seed")
    return NotASeedError(name, f"this is {found.title}", found.advice)


def parse(data: bytes | memoryview, name: str) -> Preamble:
    """Read a preamble and check its sizes; the digest is for `Preamble.check`, once the header has been read.

    Args:
        data: PREAMBLE_BYTES bytes.
        name: the file, for messages.

    Raises:
        NotASeedError: the bytes don't begin with a seed's magic.
        LimitError: a size exceeds its limit, so that nothing may be allocated by it.
    """
    if len(data) != PREAMBLE_BYTES:
        raise FormatError(name, f"its preamble has {len(data)} of {PREAMBLE_BYTES} bytes")
    magic, version, flags, header_size, file_size, digest = _LAYOUT.unpack(data)
    if magic != MAGIC:
        raise not_a_seed(data, name)
    if header_size > HEADER_MAX:
        raise LimitError(f"{name}: header size", header_size, HEADER_MAX)
    if file_size > FILE_MAX:
        raise LimitError(f"{name}: file size", file_size, FILE_MAX)
    return Preamble(header_size, file_size, digest, version, flags)


def serialize(header: bytes, body_size: int) -> bytes:
    """Return the preamble of a seed with this header, whose parts and chunks take `body_size` bytes."""
    unsigned = Preamble(len(header), PREAMBLE_BYTES + len(header) + body_size, bytes(32))
    digest = unsigned.digest_of(header)
    return _LAYOUT.pack(MAGIC, VERSION, 0, unsigned.header_size, unsigned.file_size, digest)
