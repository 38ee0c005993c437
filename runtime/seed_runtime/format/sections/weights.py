"""Section WEIGHTS: size and digest of what will be assembled, and the memory that assembling takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import DIGEST_BYTES, Parsed, Section
from seed_runtime.limits import WEIGHTS_MAX


@dataclass(frozen=True)
class WeightsInfo:
    """Size and digest of the assembled weights, and the memory that assembling them takes."""

    size: int
    """Size of the weights file, the zeros between holes included [B]."""
    digest: bytes
    """SHA-256 of the weights file."""
    working_bytes: int = 0
    """Memory that a decoder needs beyond its program to assemble this seed [B]."""


def _parse(cursor: Cursor, _: Parsed) -> WeightsInfo:
    return WeightsInfo(
        size=cursor.varint("weights size", limit=WEIGHTS_MAX),
        digest=bytes(cursor.take(DIGEST_BYTES, "weights digest")),
        working_bytes=cursor.varint("working bytes", limit=WEIGHTS_MAX),
    )


def _serialize(weights: WeightsInfo) -> bytes:
    return primitives.varint(weights.size) + weights.digest + primitives.varint(weights.working_bytes)


WEIGHTS: Final = Section(0x0002, "WEIGHTS", _parse, _serialize, required=True)
