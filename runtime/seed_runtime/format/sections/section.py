"""Record of a section: its number, its rules, and the functions between its payload and its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from seed_runtime.format.primitives import Cursor

OPTIONAL: Final = 0x8000
"""Bit of a section's id or a part's kind: a reader that doesn't know the number may ignore what it stands for."""
DIGEST_BYTES: Final = 32
"""Size of a SHA-256 digest [B]."""

T = TypeVar("T")
Parsed = Mapping[int, Any]
"""Values of the sections with smaller ids, by id."""


@dataclass(frozen=True)
class Section(Generic[T]):
    """One section of the header (SPEC.md, "Header")."""

    id: int
    name: str
    """Name of the section in SPEC.md; error messages use it."""
    parse: Callable[[Cursor, Parsed], T]
    """Function that reads the payload; the caller checks that all of it was used. Raises FormatError."""
    serialize: Callable[[T], bytes]
    """Function that writes the payload that `parse` reads."""
    required: bool = False
    """True if every seed must have the section."""
    size_max: int | None = None
    """Largest payload [B], checked before it is parsed. None where limits on its fields bound it."""


def opaque(section_id: int, name: str, size_max: int) -> Section[bytes]:
    """Return a section whose payload is handed on as bytes, to be parsed where it is used."""
    return Section(
        section_id, name, lambda cursor, _: bytes(cursor.take(cursor.remaining, name)), bytes, size_max=size_max
    )
