"""Header of a seed, before the parts: everything that is needed to verify and to plan (SPEC.md, "Header").

`parse` checks every field and every sum; what it returns can be trusted as far as one header can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from seed_runtime.errors import FormatError, LimitError, WrongBaseError, too_new
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.base import BASE, BaseInfo
from seed_runtime.format.sections.footprint import FOOTPRINT
from seed_runtime.format.sections.golden import GOLDEN
from seed_runtime.format.sections.holes import HOLES, Hole
from seed_runtime.format.sections.model import MODEL, ModelInfo, check_level
from seed_runtime.format.sections.parts import PARTS, Part
from seed_runtime.format.sections.section import OPTIONAL, Section
from seed_runtime.format.sections.signature import SIGNATURE
from seed_runtime.format.sections.streams import STREAMS, Stream, check_filled
from seed_runtime.format.sections.tuned import TUNED, Tuned
from seed_runtime.format.sections.weights import WEIGHTS, WeightsInfo
from seed_runtime.limits import SECTIONS_MAX

__all__ = [
    "SECTIONS",
    "SECTION_FRONT_BYTES",
    "BaseInfo",
    "Header",
    "Hole",
    "ModelInfo",
    "Part",
    "Stream",
    "Tuned",
    "WeightsInfo",
    "build_on",
    "parse",
    "serialize",
]

SECTION_FRONT_BYTES: Final = 6
"""Id and size of a section, before its payload [B]."""


def _of(section: Section[Any]) -> Mapping[str, Section[Any]]:
    """Mark a field of `Header` as the place where the value of `section` lands."""
    return {"section": section}


@dataclass(frozen=True)
class Header:
    """All sections, checked. Each field below is the registration of its section: `parse` and `serialize` follow them.

    GOLDEN, FOOTPRINT and SIGNATURE are bytes, parsed where they are used; None where the seed has none.
    A seed with a base may leave out PARTS and HOLES: both are empty then, until `build_on` has put the base's there.
    """

    model: ModelInfo = field(metadata=_of(MODEL))
    weights: WeightsInfo = field(metadata=_of(WEIGHTS))
    parts: tuple[Part, ...] = field(metadata=_of(PARTS))
    holes: tuple[Hole, ...] = field(metadata=_of(HOLES))
    streams: tuple[Stream, ...] = field(metadata=_of(STREAMS))
    base: BaseInfo | None = field(default=None, metadata=_of(BASE))
    golden: bytes | None = field(default=None, metadata=_of(GOLDEN))
    footprint: bytes | None = field(default=None, metadata=_of(FOOTPRINT))
    tuned: Tuned | None = field(default=None, metadata=_of(TUNED))
    signature: bytes | None = field(default=None, metadata=_of(SIGNATURE))
    ignored: dict[int, int] = field(default_factory=dict)
    """Optional sections that this runtime doesn't know: id to size [B]."""

    @property
    def body_size(self) -> int:
        """Size of all parts and chunks [B]."""
        return sum(part.size for part in self.parts) + sum(sum(stream.sizes) for stream in self.streams)

    @property
    def has_parts(self) -> bool:
        """True unless parts and holes are to be the base's."""
        return bool(self.parts)

    @property
    def depth_above(self) -> int:
        """Depth of a seed on top of this one."""
        return 1 + (0 if self.base is None else self.base.depth)

    @property
    def skeleton(self) -> Part:
        """The part that is the model without its weights."""
        return self.parts[0]


_FIELDS: Final[dict[int, str]] = {each.metadata["section"].id: each.name for each in fields(Header) if each.metadata}
"""The field of `Header` in which a section's value lands, by the section's id."""
SECTIONS: Final[dict[int, Section[Any]]] = {
    section.id: section
    for section in sorted(
        (each.metadata["section"] for each in fields(Header) if each.metadata), key=lambda section: section.id
    )
}
"""The sections that this runtime knows, by id, in ascending order."""
_SHARED: Final = (PARTS.id, HOLES.id)
"""Sections that a seed leaves out where they are to be the base's."""


def parse(data: bytes | memoryview, body_size: int) -> Header:
    """Read the header in `data`; the parts and chunks that it lists must fill exactly `body_size` bytes.

    Raises:
        FormatError: it breaks a rule of SPEC.md.
        UnsupportedError: it is made for a newer runtime.
    """
    payloads = dict(_sections(Cursor(data, "header")))
    # What is newer than this runtime is refused first: an unknown section may be the reason why another one is
    # missing, and a limit that a seed exceeds may have been raised by the release that it needs.
    parsed: dict[int, Any] = {}
    if MODEL.id in payloads:
        parsed[MODEL.id] = _value(MODEL, payloads[MODEL.id], parsed)
        check_level(parsed[MODEL.id])
    ignored = _check_ids(payloads)
    for section_id, section in SECTIONS.items():
        if section_id in payloads and section_id not in parsed:
            parsed[section_id] = _value(section, payloads[section_id], parsed)
    values = {"parts": (), "holes": ()} | {_FIELDS[section_id]: value for section_id, value in parsed.items()}
    header = Header(**values, ignored=ignored)
    if header.body_size != body_size:
        raise FormatError(
            "header", f"its parts and chunks take {header.body_size:,} bytes, the file has {body_size:,} for them"
        )
    return header


def build_on(header: Header, base: Header, digest: bytes, names: tuple[str, str]) -> Header:
    """Check that a seed is made for this base, and put the base's parts and holes where it has none.

    Args:
        header: of the seed; it has BASE.
        base: of the base, which has its own base's already.
        digest: the base's digest.
        names: of the seed's file and the base's, for messages.

    Raises:
        WrongBaseError: it is made for another base.
        FormatError: it contradicts its base.
    """
    assert header.base is not None
    if header.base.digest != digest:
        raise WrongBaseError(names[0], header.base.digest, names[1], digest)
    if header.base.depth != base.depth_above:
        raise FormatError("header, BASE", f"a depth of {header.base.depth} is not one more than the base's")
    if header.has_parts:
        return header
    if header.weights.size != base.weights.size:
        raise FormatError("header, WEIGHTS", f"{header.weights.size:,} bytes are not the base's {base.weights.size:,}")
    check_filled(header.streams, len(base.holes))
    footprint = base.footprint if header.footprint is None else header.footprint
    return replace(header, parts=base.parts, holes=base.holes, footprint=footprint)


def serialize(header: Header) -> bytes:
    """Write the bytes that `parse` reads. Ignored sections are not among them."""
    out = bytearray()
    for section_id, section in SECTIONS.items():
        value = getattr(header, _FIELDS[section_id])
        if section_id in _SHARED and not header.has_parts:
            continue
        if value is not None:
            payload = section.serialize(value)
            out += primitives.uint(section.id, 2) + primitives.uint(len(payload), 4) + payload
    return bytes(out)


def _sections(cursor: Cursor) -> Iterator[tuple[int, memoryview]]:
    previous = 0
    for _ in range(SECTIONS_MAX):
        if not cursor.remaining:
            return
        section = cursor.uint(2, "section id")
        # In ascending order: each at most once, and one way to write a header.
        if section <= previous:
            raise FormatError(cursor.where, f"section {section:#06x} stands behind {previous:#06x}")
        previous = section
        size = cursor.uint(4, f"size of section {section:#06x}")
        yield section, cursor.take(size, f"section {section:#06x}")
    if cursor.remaining:
        raise LimitError("header: sections", SECTIONS_MAX + 1, SECTIONS_MAX)


def _check_ids(payloads: Mapping[int, memoryview]) -> dict[int, int]:
    """Refuse sections that are too new, too large or missing; return those to ignore, with their sizes [B]."""
    ignored = {}
    for section_id, payload in payloads.items():
        if section_id not in SECTIONS:
            if not section_id & OPTIONAL:
                raise too_new("header", f"section {section_id:#06x}")
            ignored[section_id] = len(payload)
            continue
        size_max = SECTIONS[section_id].size_max
        if size_max is not None and len(payload) > size_max:
            raise LimitError(f"header: section {section_id:#06x}", len(payload), size_max)
    # Both or neither: the holes are what a skeleton says of its weights.
    shares = BASE.id in payloads and not any(section_id in payloads for section_id in _SHARED)
    for section_id, section in SECTIONS.items():
        if section.required and section_id not in payloads and not (shares and section_id in _SHARED):
            raise FormatError("header", f"section {section_id:#06x} is missing")
    return ignored


def _value(section: Section[Any], payload: memoryview, parsed: Mapping[int, Any]) -> Any:
    cursor = Cursor(payload, f"header, {section.name}")
    value = section.parse(cursor, parsed)
    cursor.end()
    return value
