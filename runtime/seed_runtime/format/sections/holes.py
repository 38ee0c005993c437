"""Section HOLES: where each tensor belongs in the weights file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Final

from seed_runtime.errors import FormatError, too_new
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import BY_CODE, DType
from seed_runtime.format.packing import pack_quickly, unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import Parsed, Section
from seed_runtime.format.sections.weights import WEIGHTS
from seed_runtime.limits import HOLES_RAW_MAX, RANK_MAX, TENSORS_MAX, WEIGHTS_MAX

ALIGNMENT: Final = 64
"""Alignment of each tensor's offset in a weights file [B]."""
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
    """Bytes between the end of the hole before and this one: up to a multiple of ALIGNMENT."""
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
    weights_size, where = parsed[WEIGHTS.id].size, cursor.where
    count = cursor.varint("number of holes", limit=TENSORS_MAX)
    digests = bytes(cursor.take(count * NAME_DIGEST_BYTES, "digests of names"))
    packing, size = cursor.uint(1, "packing"), cursor.varint("size of the records", limit=HOLES_RAW_MAX)
    records = Cursor(unpack(packing, cursor.take(cursor.remaining, "records"), size, where), where)
    holes, end = [], 0
    for number in range(count):
        code = records.uint(1, "dtype")
        if code not in BY_CODE:
            raise too_new(where, f"dtype {code}")
        skip = -end % ALIGNMENT
        dims, size = _dims(records, BY_CODE[code], weights_size - end - skip)
        digest = digests[number * NAME_DIGEST_BYTES : (number + 1) * NAME_DIGEST_BYTES]
        holes.append(Hole(BY_CODE[code], dims, skip, end + skip, digest))
        end += skip + size
    records.end()  # before the sum: where bytes are left over, they are the cause
    if end != weights_size:
        raise FormatError(where, f"the holes end at {end:,}, the weights file at {weights_size:,}")
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
    records = b"".join(
        primitives.uint(hole.dtype.code, 1)
        + primitives.varint(len(hole.dims))
        + b"".join(map(primitives.varint, hole.dims))
        for hole in holes
    )
    packing, packed = pack_quickly(records, 9)
    digests = b"".join(hole.name_digest for hole in holes)
    front = primitives.uint(packing, 1) + primitives.varint(len(records))
    return primitives.varint(len(holes)) + digests + front + packed


HOLES: Final = Section(0x0004, "HOLES", _parse, _serialize, required=True)
