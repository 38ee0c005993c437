"""Seeds with two faults, of which SPEC.md says which one is met first ("Order of checks")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.conformance.support.hostile import DAMAGED, NEWER
from tests.conformance.support.vector import Vector
from tests.support.seed_builder import Replacement, build_seed
from tests.support.spec_bytes import block, number, u8, u16, u32, varint

LEVEL_2 = varint(2)
HUGE = varint(1 << 62)
LONG = b"\xff" * 9 + b"\x01"
RAW, GRID, BOTH = ("raw",), ("grid",), ("raw", "grid")
CONTEXT = block(4, "EPContext") + block(7, "com.microsoft")
"""Fields of a node that no skeleton may have."""
Case = tuple[str, str, Mapping[str, Replacement], Sequence[str], int]


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    for name, tests, replaced, streams, exit_code in (*_HEADER, *_SKELETON, *_STREAMS):
        yield Vector(f"order-{name}", tests, build_seed(replaced, streams), exit_code)


_HEADER: list[Case] = [
    (
        "digest-version",
        "a newer version, and a wrong digest of the header: damage",
        {"preamble.version": u16(2), "preamble.digest": bytes(32)},
        RAW,
        DAMAGED,
    ),
    (
        "version-sections",
        "a newer version, and a header that is no sequence of sections: newer",
        {"preamble.version": u16(2), "section.id#1": u16(1)},
        RAW,
        NEWER,
    ),
    (
        "flags-sections",
        "an unknown flag, and a section that reaches past the end: newer",
        {"preamble.flags": u16(1), "section.size#6": u32(1 << 20)},
        RAW,
        NEWER,
    ),
    (
        "sections-level",
        "a higher level, and a section that reaches past the end: damage",
        {"model.feature_level": LEVEL_2, "section.size#6": u32(1 << 20)},
        RAW,
        DAMAGED,
    ),
    (
        "model-level",
        "a higher level, and a byte behind MODEL's fields: damage",
        {"model.feature_level": LEVEL_2, "model.end": b"\0"},
        RAW,
        DAMAGED,
    ),
    (
        "level-holes",
        "a higher level, and nine dimensions: newer",
        {"model.feature_level": LEVEL_2, "hole.rank": varint(9)},
        RAW,
        NEWER,
    ),
    (
        "level-size",
        "a higher level, and a golden sample of more than GOLDEN_MAX: newer",
        {"model.feature_level": LEVEL_2, "golden.end": bytes(1024)},
        RAW,
        NEWER,
    ),
    (
        "level-missing",
        "a higher level, and no STREAMS: newer",
        {"model.feature_level": LEVEL_2, "section.id#4": u16(0x8001)},
        RAW,
        NEWER,
    ),
    (
        "model-unknown",
        "MODEL is damaged, and there is an unknown critical section: damage",
        {"model.version": LONG, "section.id#4": u16(9)},
        RAW,
        DAMAGED,
    ),
    (
        "unknown-weights",
        "an unknown critical section, and WEIGHTS is damaged: newer",
        {"section.id#4": u16(9), "weights.working_bytes": HUGE},
        RAW,
        NEWER,
    ),
    (
        "unknown-size",
        "an unknown critical section, and a golden sample of more than GOLDEN_MAX: newer",
        {"section.id#4": u16(9), "golden.end": bytes(1024)},
        RAW,
        NEWER,
    ),
    (
        "weights-kind",
        "WEIGHTS is damaged, and the part is of an unknown kind: damage",
        {"weights.working_bytes": HUGE, "parts.kind": u16(3)},
        RAW,
        DAMAGED,
    ),
    (
        "kind-holes",
        "a part of an unknown kind, and nine dimensions: newer",
        {"parts.kind": u16(3), "hole.rank": varint(9)},
        RAW,
        NEWER,
    ),
    (
        "parts-dtype",
        "a part that is too large, and an unknown dtype: damage",
        {"parts.raw_size": HUGE, "hole.dtype": u8(99)},
        RAW,
        DAMAGED,
    ),
    (
        "dtype-rank",
        "an unknown dtype in the first hole, and nine dimensions in the second: newer",
        {"hole.dtype": u8(99), "hole.rank#1": varint(9)},
        BOTH,
        NEWER,
    ),
    (
        "rank-dtype",
        "nine dimensions in the first hole, and an unknown dtype in the second: damage",
        {"hole.rank": varint(9), "hole.dtype#1": u8(99)},
        BOTH,
        DAMAGED,
    ),
    (
        "dtype-dimension",
        "an unknown dtype, and too large a dimension of the same hole: newer",
        {"hole.dtype": u8(99), "hole.dimension": HUGE},
        RAW,
        NEWER,
    ),
    (
        "dtype-streams",
        "an unknown dtype, and STREAMS is damaged: newer",
        {"hole.dtype": u8(99), "streams.chunks": varint(0)},
        RAW,
        NEWER,
    ),
    (
        "golden-packing",
        "a golden sample that can't be read, and a skeleton of an unknown packing: damage",
        {"golden_output.kind": u8(3), "parts.packing": u8(9)},
        RAW,
        DAMAGED,
    ),
    (
        "footprint-packing",
        "a footprint that can't be read, and a skeleton of an unknown packing: damage",
        {"footprint.points": varint(0), "parts.packing": u8(9)},
        RAW,
        DAMAGED,
    ),
    (
        "sum-packing",
        "sizes that are not file_size together, and a skeleton of an unknown packing: damage",
        {"parts.size": varint(1), "parts.packing": u8(9)},
        RAW,
        DAMAGED,
    ),
]

_SKELETON: list[Case] = [
    (
        "digest-packing",
        "a skeleton of an unknown packing, and a wrong digest of it: damage",
        {"parts.digest": bytes(32), "parts.packing": u8(9)},
        RAW,
        DAMAGED,
    ),
    (
        "skeleton-codec",
        "a skeleton that names another file, and an unknown codec: damage",
        {"skeleton.location": b"..", "streams.codec": u8(200)},
        RAW,
        DAMAGED,
    ),
    (
        "operator-holes",
        "an operator that skeletons may not have, and a tensor that differs from its hole: the operator",
        {"skeleton.graph": block(1, CONTEXT), "skeleton.dims": number(1, 2) + number(1, 2)},
        RAW,
        NEWER,
    ),
    (
        "operator-later",
        "an operator that skeletons may not have, and an unknown field of the model behind it: the operator",
        {"skeleton.graph": block(1, CONTEXT), "skeleton.model": block(25, b"")},
        RAW,
        NEWER,
    ),
    (
        "earlier-operator",
        "a tensor in another file, and behind it an operator that skeletons may not have: damage",
        {"skeleton.location": b"..", "skeleton.graph": block(1, CONTEXT)},
        RAW,
        DAMAGED,
    ),
    (
        "operator-field",
        "an operator that skeletons may not have, and an unknown field of the same node: damage",
        {"skeleton.graph": block(1, CONTEXT + block(99, b""))},
        RAW,
        DAMAGED,
    ),
    (
        "operator-attribute",
        "an operator that skeletons may not have, whose attribute has a value of another type: damage",
        {"skeleton.graph": block(1, CONTEXT + block(5, block(1, "a") + number(3, 1) + number(20, 1)))},
        RAW,
        DAMAGED,
    ),
    (
        "operator-twice",
        "an operator that skeletons may not have, with an attribute twice: the operator",
        {"skeleton.graph": block(1, CONTEXT + block(5, block(1, "a") + number(20, 2)) * 2)},
        RAW,
        NEWER,
    ),
    (
        "attribute-value",
        "an attribute that names a file, with a value of another type: the name",
        {"skeleton.graph": block(1, block(5, block(1, "func_name") + number(3, 1) + number(20, 1)))},
        RAW,
        NEWER,
    ),
    (
        "domain-opset",
        "opset 17 twice, the first time of a domain that skeletons may not have: the domain",
        {"skeleton.opset": block(1, "evil") + number(2, 17), "skeleton.model": block(8, number(2, 17)) * 2},
        RAW,
        NEWER,
    ),
    (
        "golden-codec",
        "a golden sample of another input than the model's, and an unknown codec: damage",
        {"golden_input.dtype": u8(11), "streams.codec": u8(200)},
        RAW,
        DAMAGED,
    ),
    (
        "operator-golden",
        "an operator that skeletons may not have, and a golden sample of another input: the operator",
        {"skeleton.graph": block(1, CONTEXT), "golden_input.dtype": u8(11)},
        RAW,
        NEWER,
    ),
]

_STREAMS: list[Case] = [
    (
        "codec-digest",
        "an unknown codec, and a wrong digest of its chunk: newer",
        {"streams.codec": u8(200), "streams.chunk_digest": bytes(16)},
        RAW,
        NEWER,
    ),
    (
        "chunk-codec",
        "a wrong digest in the first stream, and an unknown codec of the second: damage",
        {"streams.chunk_digest": bytes(16), "streams.codec#1": u8(200)},
        BOTH,
        DAMAGED,
    ),
    (
        "chunk-packing",
        "a chunk of an unknown packing, and a wrong digest of it: damage",
        {"raw_chunk.packing": u8(9), "streams.chunk_digest": bytes(16)},
        RAW,
        DAMAGED,
    ),
    (
        "width-packing",
        "a chunk of width 3 and of an unknown packing: damage",
        {"raw_chunk.packing": u8(9), "raw_chunk.width": u8(3)},
        RAW,
        DAMAGED,
    ),
    (
        "head-packing",
        "a head of an unknown packing, and larger than CHUNK_DECODED_MAX: damage",
        {"head_chunk.packing": u8(9), "head_chunk.size": HUGE},
        GRID,
        DAMAGED,
    ),
    (
        "plane-packing",
        "a plane of an unknown packing, and larger than CHUNK_CODED_MAX: damage",
        {"plane.packing": u8(9), "plane.size": HUGE},
        GRID,
        DAMAGED,
    ),
    (
        "states-packing",
        "a state below 2^16, and a plane of an unknown packing: damage",
        {"data_chunk.states": bytes(8), "plane.packing": u8(9), "plane.size": varint(1)},
        GRID,
        DAMAGED,
    ),
    (
        "packing-words",
        "a plane of an unknown packing, and a word too much: newer",
        {
            "data_chunk.word_count": varint(3),
            "data_chunk.words": lambda words: words + bytes(2),
            "plane.packing": u8(9),
            "plane.size": varint(1),
        },
        GRID,
        NEWER,
    ),
    (
        "packing-weights",
        "a chunk of an unknown packing, and a wrong digest of the weights: newer",
        {"raw_chunk.packing": u8(9), "weights.digest": bytes(32)},
        RAW,
        NEWER,
    ),
    *(
        (
            f"type-packing-{codec}",
            f"a hole of a type that {codec} does not decode, and a head of an unknown packing: damage",
            {"hole.dtype": u8(code), "skeleton.type": number(2, code), "head_chunk.packing": u8(9)},
            (codec,),
            DAMAGED,
        )
        for codec, code in (("grid", 6), ("split", 5), ("moments", 6), ("lowrank", 6))
    ),
]
