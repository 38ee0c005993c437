"""Section PARTS: the packed files between the header and the streams, the skeleton first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import FormatError, too_new
from seed_runtime.format import parts as kinds
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import DIGEST_BYTES, OPTIONAL, Parsed, Section
from seed_runtime.limits import PART_CODED_MAX, PART_RAW_MAX, PARTS_MAX

_CUT: Final = 0x80
"""Bit of a part's packing: the seed leaves the end of the part out, see `PartKind.tail`."""


@dataclass(frozen=True)
class Part:
    """A packed file that stands between the header and the streams."""

    kind: int
    """A number of seed_runtime.format.parts, or one that this runtime doesn't know and ignores."""
    packing: int
    raw_size: int
    """Size of the whole unpacked part [B]."""
    size: int
    """Size of the part as it stands in the seed [B]."""
    digest: bytes
    """SHA-256 of the part as it stands in the seed."""
    names: str | None = None
    """What names of tensors begin with in the end of the part, which the seed leaves out; None where it has all."""


def _parse(cursor: Cursor, _: Parsed) -> tuple[Part, ...]:
    parts: list[Part] = []
    for index in range(cursor.varint("number of parts", limit=PARTS_MAX, least=1)):
        number, packing = cursor.uint(2, "kind of part"), cursor.uint(1, "packing of part")
        kind = kinds.KINDS.get(number)
        is_cut = kind is not None and kind.tail is not None and bool(packing & _CUT)
        part = Part(
            kind=number,
            packing=packing & ~_CUT if is_cut else packing,
            raw_size=cursor.varint("raw size of part", limit=PART_RAW_MAX),
            size=cursor.varint("size of part", limit=PART_CODED_MAX),
            digest=bytes(cursor.take(DIGEST_BYTES, "digest of part")),
            names=cursor.string("names of tensors") if is_cut else None,
        )
        if kind is None and not part.kind & OPTIONAL:
            raise too_new(cursor.where, f"part kind {part.kind:#06x}")
        # The skeleton comes first, so that a reader of a pipe can refuse it before any weights arrive.
        is_skeleton = kind is not None and kind.is_skeleton
        if is_skeleton != (index == 0) or (index and part.kind <= parts[-1].kind):
            raise FormatError(cursor.where, f"part {index} may not be of kind {part.kind:#06x}")
        parts.append(part)
    return tuple(parts)


def _serialize(parts: tuple[Part, ...]) -> bytes:
    return primitives.varint(len(parts)) + b"".join(
        primitives.uint(part.kind, 2)
        + primitives.uint(part.packing | (0 if part.names is None else _CUT), 1)
        + primitives.varint(part.raw_size)
        + primitives.varint(part.size)
        + part.digest
        + (b"" if part.names is None else primitives.string(part.names))
        for part in parts
    )


PARTS: Final = Section(0x0003, "PARTS", _parse, _serialize, required=True)
