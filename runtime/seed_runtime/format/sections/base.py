"""Section BASE: the seed that this one is assembled on top of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import DIGEST_BYTES, Parsed, Section
from seed_runtime.limits import CHAIN_MAX


@dataclass(frozen=True)
class BaseInfo:
    """What a seed says of its base."""

    digest: bytes
    """Digest of the base, a seed, which stands for all that is in it."""
    depth: int
    """Number of seeds that this one is assembled on top of, one after the other."""


def _parse(cursor: Cursor, _: Parsed) -> BaseInfo:
    return BaseInfo(
        digest=bytes(cursor.take(DIGEST_BYTES, "digest of the base")),
        depth=cursor.varint("depth of the chain", limit=CHAIN_MAX, least=1),
    )


def _serialize(base: BaseInfo) -> bytes:
    return base.digest + primitives.varint(base.depth)


BASE: Final = Section(0x0008, "BASE", _parse, _serialize)
