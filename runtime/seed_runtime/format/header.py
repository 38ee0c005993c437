"""What stands before the streams: everything that is needed to verify and to plan (SPEC.md, "Header").

`parse` checks every field and every sum; what it returns can be trusted as far as one header can tell.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

from seed_runtime.errors import FormatError, LimitError, UnsupportedError, too_new
from seed_runtime.format import primitives
from seed_runtime.format.dtypes import BY_CODE, DType
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import (
    CHUNK_CODED_MAX,
    CHUNKS_MAX,
    FOOTPRINT_MAX,
    GOLDEN_MAX,
    PART_CODED_MAX,
    PART_RAW_MAX,
    PARTS_MAX,
    RANK_MAX,
    SECTIONS_MAX,
    SIGNATURE_MAX,
    SKIP_MAX,
    STREAMS_MAX,
    TENSORS_MAX,
    WEIGHTS_MAX,
)
from seed_runtime.version import __version__

OPTIONAL: Final = 0x8000
"""Set in the id of a section or the kind of a part that a reader which does not know it may ignore."""

MODEL: Final = 0x0001
WEIGHTS: Final = 0x0002
PARTS: Final = 0x0003
HOLES: Final = 0x0004
STREAMS: Final = 0x0005
GOLDEN: Final = OPTIONAL | 0x0006
FOOTPRINT: Final = OPTIONAL | 0x0007
SIGNATURE: Final = OPTIONAL | 0x7FFF
"""The last id that there is, so that all other sections stand before it and are signed."""

REQUIRED = (MODEL, WEIGHTS, PARTS, HOLES, STREAMS)
_SECTION_MAX = {GOLDEN: GOLDEN_MAX, FOOTPRINT: FOOTPRINT_MAX, SIGNATURE: SIGNATURE_MAX}

ONNX_SKELETON: Final = 0x0001
"""The one part that version 1 knows: an ONNX ModelProto whose weights are external data."""

SECTION_FRONT_BYTES: Final = 6
"""Id and size of a section."""
DIGEST_BYTES: Final = 32
CHUNK_DIGEST_BYTES: Final = 16
"""SHA-256, cut: what an attacker needs here is a second preimage, and 32 bytes a chunk cost a small seed 1 %."""


@dataclass(frozen=True)
class Model:
    """Who this seed is. `version` grows with every release of the same `model_id`."""

    model_id: str
    version: int
    min_runtime: tuple[int, int, int]
    parameters: int
    """Distinct weights of the source, elements."""
    source_bytes: int
    """Bytes of these weights in the source: what the ratio is measured against."""


@dataclass(frozen=True)
class Part:
    """A packed file that stands between the header and the streams."""

    kind: int
    packing: int
    raw_size: int
    size: int
    digest: bytes


@dataclass(frozen=True)
class Hole:
    """A tensor's place in the weights file: `skip` zero bytes, then the elements in C order."""

    dtype: DType
    dims: tuple[int, ...]
    skip: int
    offset: int = 0

    @property
    def count(self) -> int:
        return prod(self.dims)

    @property
    def size(self) -> int:
        return self.dtype.size(self.count)


@dataclass(frozen=True)
class Stream:
    """One codec's chunks, which fill `holes` consecutive holes from `first` on."""

    codec: int
    first: int
    holes: int
    sizes: Sequence[int]
    digests: bytes
    """CHUNK_DIGEST_BYTES for each of `sizes`."""

    def digest(self, chunk: int) -> bytes:
        return self.digests[chunk * CHUNK_DIGEST_BYTES : (chunk + 1) * CHUNK_DIGEST_BYTES]


@dataclass(frozen=True)
class Header:
    """All sections, checked; bytes of GOLDEN, FOOTPRINT and SIGNATURE are left to those who use them."""

    model: Model
    working_bytes: int
    """What a decoder needs beyond its program to assemble this seed [B]."""
    weights_size: int
    weights_digest: bytes
    parts: tuple[Part, ...]
    holes: tuple[Hole, ...]
    streams: tuple[Stream, ...]
    golden: bytes | None = None
    footprint: bytes | None = None
    signature: bytes | None = None
    """An SSHSIG blob, without armour."""
    ignored: dict[int, int] = field(default_factory=dict)
    """Unknown optional sections: id -> size."""

    @property
    def body_size(self) -> int:
        return sum(part.size for part in self.parts) + sum(sum(stream.sizes) for stream in self.streams)

    @property
    def skeleton(self) -> Part:
        return self.parts[0]


def parse(data: bytes | memoryview, body_size: int) -> Header:
    """The header in `data`; the parts and chunks it lists must fill exactly `body_size` bytes."""
    sections = dict(_sections(Cursor(data, "header")))
    ignored = {}
    # First what is new: a section that this runtime doesn't know may be the reason why another one is missing, and
    # a limit that a seed exceeds may have been raised by the release that it needs.
    if MODEL in sections:
        _check_runtime(model := _model(Cursor(sections[MODEL], "header, MODEL")))
    for section, payload in sections.items():
        if section in REQUIRED:
            continue
        if not section & OPTIONAL:
            raise too_new("header", f"section {section:#06x}")
        limit = _SECTION_MAX.get(section)
        if limit is None:
            ignored[section] = len(payload)
        elif len(payload) > limit:
            raise LimitError(f"header: section {section:#06x}", len(payload), limit)
    for section in REQUIRED:
        if section not in sections:
            raise FormatError("header", f"section {section:#06x} is missing")
    weights_size, digest, working = _weights(Cursor(sections[WEIGHTS], "header, WEIGHTS"))
    holes = _holes(Cursor(sections[HOLES], "header, HOLES"), weights_size)
    header = Header(
        model=model,
        working_bytes=working,
        weights_size=weights_size,
        weights_digest=digest,
        parts=_parts(Cursor(sections[PARTS], "header, PARTS")),
        holes=holes,
        streams=_streams(Cursor(sections[STREAMS], "header, STREAMS"), len(holes)),
        golden=bytes(sections[GOLDEN]) if GOLDEN in sections else None,
        footprint=bytes(sections[FOOTPRINT]) if FOOTPRINT in sections else None,
        signature=bytes(sections[SIGNATURE]) if SIGNATURE in sections else None,
        ignored=ignored,
    )
    if header.body_size != body_size:
        raise FormatError(
            "header", f"its parts and chunks take {header.body_size:,} bytes, the file has {body_size:,} for them"
        )
    return header


def serialize(header: Header) -> bytes:
    """The bytes that `parse` reads."""
    model, out = header.model, {}
    out[MODEL] = (
        primitives.string(model.model_id)
        + primitives.varint(model.version)
        + b"".join(primitives.varint(number) for number in model.min_runtime)
        + primitives.varint(model.parameters)
        + primitives.varint(model.source_bytes)
    )
    out[WEIGHTS] = (
        primitives.varint(header.weights_size) + header.weights_digest + primitives.varint(header.working_bytes)
    )
    out[PARTS] = primitives.varint(len(header.parts)) + b"".join(
        primitives.uint(part.kind, 2)
        + primitives.uint(part.packing, 1)
        + primitives.varint(part.raw_size)
        + primitives.varint(part.size)
        + part.digest
        for part in header.parts
    )
    out[HOLES] = primitives.varint(len(header.holes)) + b"".join(
        primitives.uint(hole.dtype.code, 1)
        + primitives.varint(hole.skip)
        + primitives.varint(len(hole.dims))
        + b"".join(primitives.varint(dim) for dim in hole.dims)
        for hole in header.holes
    )
    out[STREAMS] = primitives.varint(len(header.streams)) + b"".join(
        primitives.uint(stream.codec, 1)
        + primitives.varint(stream.holes)
        + primitives.varint(len(stream.sizes))
        + b"".join(primitives.varint(size) for size in stream.sizes)
        + stream.digests
        for stream in header.streams
    )
    if header.golden is not None:
        out[GOLDEN] = header.golden
    if header.footprint is not None:
        out[FOOTPRINT] = header.footprint
    if header.signature is not None:
        out[SIGNATURE] = header.signature
    return b"".join(primitives.uint(key, 2) + primitives.uint(len(out[key]), 4) + out[key] for key in sorted(out))


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


def _model(cursor: Cursor) -> Model:
    model = Model(
        model_id=cursor.string("model id"),
        version=cursor.varint("model version", limit=(1 << 63) - 1),
        min_runtime=(
            cursor.varint("minimum runtime, major", limit=1 << 16),
            cursor.varint("minimum runtime, minor", limit=1 << 16),
            cursor.varint("minimum runtime, patch", limit=1 << 16),
        ),
        parameters=cursor.varint("parameters", limit=WEIGHTS_MAX * 2),
        source_bytes=cursor.varint("source bytes", limit=WEIGHTS_MAX * 8),
    )
    cursor.end()
    return model


def _check_runtime(model: Model) -> None:
    # A pre-release of 0.2.0 counts as 0.2.0.
    running = tuple(int(number) for number in re.findall(r"\d+", __version__)[:3])
    if model.min_runtime > running:
        wanted = ".".join(map(str, model.min_runtime))
        raise UnsupportedError(
            f"this seed needs seed-runtime {wanted} and this is {__version__}; "
            f"update it: pip install -U 'seed-runtime>={wanted}'"
        )


def _weights(cursor: Cursor) -> tuple[int, bytes, int]:
    size = cursor.varint("weights size", limit=WEIGHTS_MAX)
    digest = bytes(cursor.take(DIGEST_BYTES, "weights digest"))
    working = cursor.varint("working bytes", limit=WEIGHTS_MAX)
    cursor.end()
    return size, digest, working


def _parts(cursor: Cursor) -> tuple[Part, ...]:
    parts: list[Part] = []
    for index in range(cursor.varint("number of parts", limit=PARTS_MAX, least=1)):
        part = Part(
            kind=cursor.uint(2, "kind of part"),
            packing=cursor.uint(1, "packing of part"),
            raw_size=cursor.varint("raw size of part", limit=PART_RAW_MAX),
            size=cursor.varint("size of part", limit=PART_CODED_MAX),
            digest=bytes(cursor.take(DIGEST_BYTES, "digest of part")),
        )
        if part.kind != ONNX_SKELETON and not part.kind & OPTIONAL:
            raise too_new(cursor.where, f"part kind {part.kind:#06x}")
        # The skeleton comes first, so that a reader of a pipe can refuse it before any weights arrive.
        if (part.kind == ONNX_SKELETON) != (index == 0) or (index and part.kind <= parts[-1].kind):
            raise FormatError(cursor.where, f"part {index} may not be of kind {part.kind:#06x}")
        parts.append(part)
    cursor.end()
    return tuple(parts)


def _holes(cursor: Cursor, weights_size: int) -> tuple[Hole, ...]:
    holes, offset = [], 0
    for _ in range(cursor.varint("number of holes", limit=TENSORS_MAX)):
        code = cursor.uint(1, "dtype")
        if code not in BY_CODE:
            raise too_new(cursor.where, f"dtype {code}")
        skip = cursor.varint("skip", limit=SKIP_MAX)
        rank = cursor.varint("rank", limit=RANK_MAX)
        dims = tuple(cursor.varint("dimension", limit=WEIGHTS_MAX, least=1) for _ in range(rank))
        hole = Hole(BY_CODE[code], dims, skip, offset + skip)
        # Checked as it grows: eight dimensions of 2**40 must not become a number of 320 bits later.
        offset = hole.offset + hole.size
        if offset > weights_size:
            raise FormatError(cursor.where, f"a hole ends {offset - weights_size:,} bytes past the weights file")
        holes.append(hole)
    cursor.end()
    if offset != weights_size:
        raise FormatError(cursor.where, f"the holes end at {offset:,}, the weights file at {weights_size:,}")
    return tuple(holes)


def _streams(cursor: Cursor, holes: int) -> tuple[Stream, ...]:
    streams, first, chunks = [], 0, 0
    for _ in range(cursor.varint("number of streams", limit=STREAMS_MAX)):
        codec = cursor.uint(1, "codec")
        taken = cursor.varint("holes of a stream", limit=TENSORS_MAX, least=1)
        count = cursor.varint("chunks of a stream", limit=CHUNKS_MAX - chunks, least=1)
        sizes = array("Q", (cursor.varint("chunk size", limit=CHUNK_CODED_MAX) for _ in range(count)))
        digests = bytes(cursor.take(count * CHUNK_DIGEST_BYTES, "chunk digests"))
        streams.append(Stream(codec, first, taken, sizes, digests))
        first, chunks = first + taken, chunks + count
    cursor.end()
    if first != holes:
        raise FormatError(cursor.where, f"the streams fill {first} holes, there are {holes}")
    return tuple(streams)
