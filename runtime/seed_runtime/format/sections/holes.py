"""Section HOLES: where each tensor belongs in the weights file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Final

from seed_runtime.errors import FormatError, too_new
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import BY_CODE, DType
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import Parsed, Section
from seed_runtime.format.sections.weights import WEIGHTS
from seed_runtime.limits import RANK_MAX, SKIP_MAX, TENSORS_MAX, WEIGHTS_MAX

NAME_DIGEST_BYTES: Final = 3
"""Size of the digest of a tensor's name [B]: of 10,000 tensors alike, six share theirs with another one."""


def name_digest(name: str) -> bytes:
    """Return the digest by which a later seed finds the tensor of this name; the skeleton need not hold the name."""
    return hashlib.sha256(name.encode()).digest()[:NAME_DIGEST_BYTES]


@dataclass(frozen=True)
class Hole:
    """A tensor's place in the weights file: `skip` zero bytes, then the elements in C order."""

    dtype: DType
    dims: tuple[int, ...]
    skip: int
    offset: int = 0
    """Offset of the first element in the weights file [B]."""
    name_digest: bytes = bytes(NAME_DIGEST_BYTES)
    """Digest of the tensor's name in the source, see `name_digest`."""

    @property
    def count(self) -> int:
        """Number of elements of the tensor."""
        return prod(self.dims)

    @property
    def size(self) -> int:
        """Size of the tensor [B]."""
        return self.dtype.size(self.count)


def _parse(cursor: Cursor, parsed: Parsed) -> tuple[Hole, ...]:
    weights_size = parsed[WEIGHTS.id].size
    holes, offset = [], 0
    for _ in range(cursor.varint("number of holes", limit=TENSORS_MAX)):
        code = cursor.uint(1, "dtype")
        if code not in BY_CODE:
            raise too_new(cursor.where, f"dtype {code}")
        skip = cursor.varint("skip", limit=SKIP_MAX)
        digest = bytes(cursor.take(NAME_DIGEST_BYTES, "digest of a name"))
        offset += skip
        dims, size = _dims(cursor, BY_CODE[code], weights_size - offset)
        holes.append(Hole(BY_CODE[code], dims, skip, offset, digest))
        offset += size
    cursor.end()  # before the sum: where bytes are left over, they are the cause
    if offset != weights_size:
        raise FormatError(cursor.where, f"the holes end at {offset:,}, the weights file at {weights_size:,}")
    return tuple(holes)


def _dims(cursor: Cursor, dtype: DType, room: int) -> tuple[tuple[int, ...], int]:
    """Read the dimensions of a hole that may take `room` bytes; return its size too [B]."""
    dims: list[int] = []
    count = 1
    for left in range(cursor.varint("rank", limit=RANK_MAX), -1, -1):
        # As the product grows: eight dimensions of 2**40 must not become a number of 320 bits.
        if (size := dtype.size(count)) > room:
            raise FormatError(cursor.where, f"a hole ends {size - room:,} bytes past the weights file")
        if left:
            dims.append(cursor.varint("dimension", limit=WEIGHTS_MAX, least=1))
            count *= dims[-1]
    return tuple(dims), size


def _serialize(holes: tuple[Hole, ...]) -> bytes:
    return primitives.varint(len(holes)) + b"".join(
        primitives.uint(hole.dtype.code, 1)
        + primitives.varint(hole.skip)
        + hole.name_digest
        + primitives.varint(len(hole.dims))
        + b"".join(map(primitives.varint, hole.dims))
        for hole in holes
    )


HOLES: Final = Section(0x0004, "HOLES", _parse, _serialize, required=True)
