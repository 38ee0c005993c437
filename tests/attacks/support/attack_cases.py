"""The attacks: for each field of SPEC.md, what a hostile seed may write into it.

Each is a seed whose digests are all valid for the bytes that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seed_runtime.errors import DigestError, FormatError, LimitError, NotASeedError, SeedError, UnsupportedError
from tests.attacks.support.seed_builder import Lie
from tests.attacks.support.spec_bytes import (
    LZMA_PROPERTIES,
    deflate,
    f32,
    i32,
    lzma1,
    number,
    string,
    u8,
    u16,
    u32,
    u64,
    varint,
)

HUGE = varint(1 << 62)
LONG = b"\xff" * 9 + b"\x01"
"""A varint of 64 bits."""
PADDED = b"\x81\x00"
"""One, and not in its shortest form."""
NAN, INF = f32(float("nan")), f32(float("inf"))


@dataclass(frozen=True)
class Attack:
    """`lies` are told at once; the error is of `error`'s class and says `text`."""

    field: str
    lies: Mapping[str, Lie]
    error: type[SeedError]
    text: str


ATTACKS: list[Attack] = []


def lie(field: str, value: Lie, text: str, error: type[SeedError] = FormatError, **more: Lie) -> None:
    """One attack on `field`; a scope or a number may stand in it. `more`: `section__field` tells another lie."""
    name = field.rpartition("/")[2].partition("#")[0]
    lies = {field: value} | {key.replace("__", "."): other for key, other in more.items()}
    ATTACKS.append(Attack(name, lies, error, text))


def add(data: bytes) -> Lie:
    """The truth and something behind it."""
    return lambda truth: truth + data


def one_more(truth: bytes) -> bytes:
    return bytes([truth[0] + 1])


def cut(truth: bytes) -> bytes:
    return truth[:-1]


# Preamble
lie("preamble.magic", b"\x89SEED\n\x1a\n", "not a seed", NotASeedError)
lie("preamble.version", u16(2), "version 2 .* newer", UnsupportedError)
lie("preamble.version", u16(0xFFFF), "newer", UnsupportedError)
lie("preamble.flags", u16(1), "flags 0x1", UnsupportedError)
lie("preamble.header_size", u32(0xFFFFFFFF), "header size", LimitError)
lie("preamble.header_size", u32((2 << 20) + 1), "header size", LimitError)
lie("preamble.header_size", u32(2 << 20), "header: it ends after")
lie("preamble.header_size", u32(0), "digest", DigestError)
lie("preamble.file_size", u64((1 << 40) + 1), "file size", LimitError)
lie("preamble.file_size", u64(1 << 63), "file size", LimitError)
lie("preamble.file_size", u64(1 << 20), "bytes of 1,048,576|the file has 1,04")
lie("preamble.file_size", u64(0), "bytes of 0|the file has -")
lie("preamble.digest", bytes(32), "digest", DigestError)

# Sections
lie("section.id", u16(0), "stands behind")
lie("section.id#1", u16(1), "stands behind")
lie("section.id#3", u16(2), "stands behind")
lie("section.id#4", u16(9), "section 0x0009 is unknown", UnsupportedError)
lie("section.id#4", u16(0x8001), "section 0x0005 is missing")
lie("section.size", u32(0xFFFFFFFF), "past the end")
lie("section.size", u32(0), "stands behind|past the end|missing")
lie("section.size#6", lambda truth: u32(truth[0] - 1), "past the end")
lie(
    "section.payload",
    lambda _: b"",
    "sections",
    LimitError,
    header__end=b"".join(u16(0x8100 + i) + u32(0) for i in range(60)),
)

ATTACKS.append(Attack("section.payload", {"streams.end": b"\0"}, FormatError, "1 bytes too many"))

# SIGNATURE, which the honest seed hasn't; what is forged in it stands in test_signatures.py.
ATTACKS.append(
    Attack("signature.blob", {"header.end": u16(0xFFFF) + u32(8193) + bytes(8193)}, LimitError, "section 0xffff")
)

# MODEL
lie("model.id", string("x" * 256), "length of model id", LimitError)
lie("model.id", HUGE, "length of model id", LimitError)
lie("model.id", varint(200) + b"x", "past the end")
lie("model.id", varint(2) + b"\xc3\x28", "UTF-8")
lie("model.id", string("a\x1b[2Jb"), "can't be printed")
lie("model.id", string("a\nb"), "can't be printed")
lie("model.id", string("\u202egpj"), "can't be printed")
lie("model.version", LONG, "longer than 9 bytes")
lie("model.version", PADDED, "shortest form")
lie("model.runtime_major", varint(9), "needs seed-runtime 9.1.0", UnsupportedError)
lie("model.runtime_major", HUGE, "major", LimitError)
lie("model.runtime_minor", varint(9999), "needs seed-runtime 0.9999.0", UnsupportedError)
lie("model.runtime_minor", HUGE, "minor", LimitError)
lie("model.runtime_patch", HUGE, "patch", LimitError)
lie("model.parameters", HUGE, "parameters", LimitError)
lie("model.source_bytes", HUGE, "source bytes", LimitError)
lie("model.source_bytes", add(b"\0"), "1 bytes too many")

# WEIGHTS
lie("weights.size", HUGE, "weights size", LimitError)
lie("weights.size", varint(1 << 40), "the holes end at")
lie("weights.size", varint(15), "past the weights file")
lie("weights.digest", bytes(32), "assembled weights", DigestError)
lie("weights.working_bytes", HUGE, "working bytes", LimitError)
lie("weights.working_bytes", add(b"\0"), "1 bytes too many")

# PARTS
lie("parts.count", varint(0), "at least 1")
lie("parts.count", varint(17), "number of parts", LimitError)
lie("parts.count", varint(2), "past the end")
lie("parts.kind", u16(2), "part kind 0x0002 is unknown", UnsupportedError)
lie("parts.kind", u16(0), "part kind 0x0000 is unknown", UnsupportedError)
lie("parts.kind", u16(0x8001), "may not be of kind")
lie("parts.packing", u8(9), "packing 9 is unknown", UnsupportedError)
lie("parts.packing", u8(1), "deflate")
lie("parts.raw_size", HUGE, "raw size of part", LimitError)
lie("parts.raw_size", varint((16 << 20) + 1), "raw size of part", LimitError)
lie("parts.raw_size", varint(16 << 20), "announced")
lie("parts.size", HUGE, "size of part", LimitError)
lie("parts.size", varint(4 << 20), "the file has")
lie("parts.digest", bytes(32), "part 0x0001", DigestError)
lie("parts.digest", add(b"\0"), "1 bytes too many")

# HOLES
lie("holes.count", HUGE, "number of holes", LimitError)
lie("holes.count", varint(6), "past the end")
lie("holes.count", varint(3), "too many")
lie("holes.dtype", u8(99), "dtype 99 is unknown", UnsupportedError)
lie("holes.dtype", u8(8), "dtype 8 is unknown", UnsupportedError)  # strings
lie("holes.dtype", u8(12), "differs in dtype")
for _place, _codec in enumerate(("grid", "split", "moments", "lowrank"), start=1):
    # A type of the same size, in the skeleton as well, that the codec has no business with.
    _code = 5 if _codec == "split" else 6
    _lies = {f"holes.dtype#{_place}": u8(_code), f"skeleton.type#{_place}": number(2, _code)}
    ATTACKS.append(Attack("holes.dtype", _lies, FormatError, f"{_codec} does not decode int"))
lie("holes.skip#1", HUGE, "skip", LimitError)
lie("holes.skip#1", varint(49), "past the weights file")
lie("holes.skip#1", varint(47), "the holes end at|nothing in it refers")
lie("holes.rank", varint(9), "rank", LimitError)
lie("holes.rank", varint(0), "rank|unknown|past the end|too many", SeedError)
lie("holes.dimension", varint(0), "at least 1")
lie("holes.dimension", HUGE, "dimension", LimitError)
lie("holes.dimension", varint(1 << 40), "past the weights file")
lie("holes.dimension#1", lambda _: varint(4), "differs in dims|past the weights file")

# STREAMS
lie("streams.count", varint(5000), "number of streams", LimitError)
lie("streams.count", varint(6), "past the end")
lie("streams.count", varint(3), "too many")
lie("streams.codec", u8(0), "codec 0 is unknown", UnsupportedError)
lie("streams.codec", u8(200), "codec 200 is unknown", UnsupportedError)
lie("streams.codec", u8(2), "stream 0")
lie("streams.codec#1", u8(1), "stream 1", SeedError)
lie("streams.codec#2", u8(2), "stream 2")
lie("streams.holes", varint(0), "at least 1")
lie("streams.holes", HUGE, "holes of a stream", LimitError)
lie("streams.holes", varint(2), "the streams fill 6 holes")
lie("streams.chunks", varint(0), "at least 1")
lie("streams.chunks", HUGE, "chunks of a stream", LimitError)
lie("streams.chunks", varint(1 << 17), "past the end|chunk size")
_GONE = ("states", "word_count", "words", "escapes")
ATTACKS.append(
    Attack(
        "streams.chunks",
        {"streams.chunks#1": varint(1), "streams.chunk_size#2": b"", "streams.chunk_digest#2": b""}
        | {f"grid/data_chunk.{name}": b"" for name in _GONE}
        | {"grid/plane.packing": b"", "grid/plane.data": b""},
        FormatError,
        "its data is missing",
    )
)
lie("streams.chunk_size", HUGE, "chunk size", LimitError)
lie("streams.chunk_size", varint((6 << 20) + 1), "chunk size", LimitError)
lie("streams.chunk_size", varint(6 << 20), "the file has")
lie("streams.chunk_size", varint(0), "the file has")
lie("streams.chunk_digest", bytes(16), "stream 0, chunk 0", DigestError)
lie("streams.chunk_digest", add(b"\0"), "too many|past the end|stream|chunk size", SeedError)

# GOLDEN
lie("golden.seed", LONG, "longer than 9 bytes")
lie("golden.inputs", varint(65), "inputs", LimitError)
lie("golden.inputs", varint(0), "too many|past the end|values|tolerance")
lie("golden_input.kind", u8(4), "kind 4")
lie("golden_input.kind", u8(2), "can't be made", golden_input__dtype=u8(6))
lie("golden_input.dtype", u8(99), "dtype 99")
lie("golden_input.dtype", u8(21), "dtype 21")  # two elements to a byte
lie("golden_input.dtype", u8(16), "can't be made", golden_input__kind=u8(1), golden_input__b=f32(1))
lie("golden_input.rank", varint(9), "rank", LimitError)
lie("golden_input.dimension", varint(0), "at least 1")
lie("golden_input.dimension", HUGE, "dimension", LimitError)
lie("golden_input.dimension", varint(1 << 22), "elements of an input", LimitError)
lie("golden_input.a", NAN, "can't be made")
lie(
    "golden_input.a",
    f32(300),
    "can't be made",
    golden_input__kind=u8(3),
    golden_input__b=f32(301),
    golden_input__dtype=u8(2),
)
lie("golden_input.b", INF, "can't be made")
lie("golden_input.b", f32(-1), "can't be made", golden_input__kind=u8(1))
lie(
    "golden_input.data", b"\0" * 7, "past the end", golden_input__kind=u8(255), golden_input__a=b"", golden_input__b=b""
)
lie("golden.outputs", varint(65), "outputs", LimitError)
lie("golden.outputs", varint(2), "past the end")
lie("golden_output.size", HUGE, "elements of an output", LimitError)
lie("golden_output.size", varint(1), "4 values of an output with 1")
lie("golden_output.tolerance", NAN, "tolerance")
lie("golden_output.tolerance", INF, "tolerance")
lie("golden_output.tolerance", f32(-1), "tolerance")
lie("golden_output.norm", f32(-1), "norm")
lie("golden_output.count", varint(65), "values", LimitError)
lie("golden_output.values", cut, "past the end")
lie("golden_output.values", add(bytes(1024)), "section 0x8006", LimitError)

# FOOTPRINT
lie("footprint.axes", varint(17), "free dimensions", LimitError)
lie("footprint.axes", varint(0), "FOOTPRINT")
lie("footprint.input", varint(2) + b"\xff\xff", "UTF-8")
lie("footprint.axis", varint(8), "axis", LimitError)
lie("footprint.points", varint(0), "at least 1")
lie("footprint.points", varint(17), "points", LimitError)
lie("footprint.point", varint(0), "at least 1")
lie("footprint.point", varint(8), "stands twice")
lie("footprint.point", HUGE, "size", LimitError)
lie("footprint.modes", varint(0), "at least 1")
lie("footprint.modes", varint(9), "modes", LimitError)
lie("footprint.modes", varint(2), "past the end")
lie("footprint.mode", string("\x07"), "can't be printed")
lie("footprint.opening", HUGE, "opening", LimitError)
lie("footprint.mapped", HUGE, "mapped", LimitError)
lie("footprint.peak", HUGE, "peak", LimitError)
lie("footprint.peak", varint(18), "falls when the input grows")
lie("footprint.peak#1", add(bytes(4096)), "section 0x8007", LimitError)


# Packings, tried on the head of the grid stream
def packed(field: str, data: Lie, text: str, error: type[SeedError] = FormatError, packing: int = 2) -> None:
    ATTACKS.append(Attack(field, {"grid/head_chunk.packing": u8(packing), "grid/head_chunk.data": data}, error, text))


def _lzma(properties: int = LZMA_PROPERTIES, dictionary_log2: int = 12, after: bytes = b"") -> Lie:
    return lambda raw: bytes([properties, dictionary_log2]) + lzma1(raw) + after


packed("lzma.properties", _lzma(properties=225), "properties 225 are not valid")
packed("lzma.properties", _lzma(properties=4 * 9 + 8), "are not valid")  # lc + lp of 12
packed("lzma.properties", b"", "past the end")
packed("lzma.dictionary", _lzma(dictionary_log2=21), "LZMA dictionary", LimitError)
packed("lzma.dictionary", _lzma(dictionary_log2=255), "LZMA dictionary", LimitError)
packed("lzma.dictionary", _lzma(dictionary_log2=11), "not valid")
packed("lzma.data", lambda raw: bytes([LZMA_PROPERTIES, 12]) + lzma1(raw)[:-1], "does not end")
packed("lzma.data", _lzma(after=b"\0"), "does not end")
packed("lzma.data", lambda raw: bytes([LZMA_PROPERTIES, 12]) + b"\xff" * 40, "LZMA")
packed("lzma.data", lambda _: bytes([LZMA_PROPERTIES, 12]) + lzma1(bytes(16 << 20)), "does not end")  # a bomb
packed("deflate.data", lambda raw: deflate(raw)[:-1], "does not end", packing=1)
packed("deflate.data", lambda raw: deflate(raw) + b"\0", "does not end", packing=1)
packed("deflate.data", lambda raw: b"\xff" * 40, "deflate", packing=1)
packed("deflate.data", lambda raw: deflate(bytes(16 << 20)), "does not end", packing=1)  # a bomb
packed("deflate.data", lambda raw: deflate(raw[:-1]), "announced", packing=1)

# raw
lie("raw_chunk.packing", u8(9), "packing 9 is unknown", UnsupportedError)
lie("raw_chunk.packing", u8(2), "LZMA")
lie("raw_chunk.width", u8(0), "width 0")
lie("raw_chunk.width", u8(3), "width 3")
lie("raw_chunk.width", u8(255), "width 255")
lie("raw_chunk.data", cut, "announced")
lie("raw_chunk.data", add(b"\0"), "announced")

# Symbol streams
lie("part.data", b"PK\x03\x04" + bytes(100), "skeleton", parts__packing=u8(0))
lie("head_chunk.packing", u8(9), "packing 9 is unknown", UnsupportedError)
lie("head_chunk.size", HUGE, "size", LimitError)
lie("head_chunk.size", varint((1 << 20) + 1), "size", LimitError)
lie("head_chunk.size", varint(1 << 20), "announced")
lie("head_chunk.data", cut, "announced")
lie("head.lanes", u8(16), r"2\*\*16 lanes")
lie("head.lanes", u8(255), r"2\*\*255 lanes")
lie("head.lanes", u8(14), "lane states")
lie("head.classes", varint(0), "at least 1")
lie("head.classes", varint(65), "classes", LimitError)
lie("head.classes", varint(64), "sum|past the end|exceeds|symbols", SeedError)
lie("head.classes", varint(1), "columns do not divide|too many|low bits|flags|column")
lie("head.row_steps", cut, "past the end")
lie("head.row_steps", b"\xff\xff\xff", "step of a row", matrix__step=f32(3e38))
lie("head.row_classes", bytes([200, 0, 200]), "class without a table")
lie("head.row_classes", bytes(3), "more chunks")
lie("head.col_classes", bytes([255] * 4), "class without a table")
lie("head.col_classes", add(b"\1"), "1 bytes too many")
lie("table.count", varint(0), "no table to share")
lie("table.count", varint(257), "symbols", LimitError)
lie("table.escape", varint(4096), "escape frequency", LimitError)
lie("table.escape", varint(55), "sum 4095")
lie("table.first", u8(0x7E), "lists the escape")
lie("table.frequency", varint(4096), "frequency", LimitError)
lie("table.frequency", one_more, "sum 4097")
lie("matrix.columns", varint(0), "at least 1")
lie("matrix.columns", varint(5), "5 columns do not divide 12")
lie("matrix.columns", HUGE, "columns", LimitError)
lie("matrix.columns", varint(1), "past the end|too many")
lie("matrix.low_bits", u8(25), "25 low bits")
lie("matrix.low_bits", u8(24), "past the end|packing|unknown", SeedError)
lie("split/matrix.low_bits", u8(7), "7 low bits do not make a float16")
lie("matrix.flags", u8(8), "flags 0x8")
lie("matrix.flags", u8(255), "flags 0xff")
lie("split/matrix.flags", u8(4), "flags 0x4")
lie("matrix.step", f32(0), "quantization step")
lie("matrix.step", f32(-1), "quantization step")
lie("matrix.step", INF, "quantization step")
lie("matrix.step", NAN, "quantization step")
lie("data_chunk.states", bytes(8), "state is below")
lie("data_chunk.states", b"\xff" * 8, "words|lanes do not end|escapes")
lie("data_chunk.word_count", HUGE, "words", LimitError)
lie("data_chunk.word_count", varint(3 << 20), "words ends")
lie(
    "data_chunk.words",
    add(bytes(2)),
    "left over|escapes|words|planes|past the end|int32s",
    SeedError,
    data_chunk__word_count=one_more,
)
lie("data_chunk.words", b"", "early", data_chunk__word_count=varint(0))
lie("data_chunk.words", b"\0\0\0\0", "words|lanes do not end|escapes")
lie("data_chunk.escapes", b"", "escapes end early")
lie("data_chunk.escapes", i32(300, 300), "left over")
lie("data_chunk.escapes", b"\0\0\0", "no int32s")
lie("data_chunk.escapes", i32(-(1 << 31)), "assembled weights", DigestError)
lie("plane.packing", u8(9), "packing 9 is unknown", UnsupportedError, plane__size=varint(1))
lie("plane.packing", u8(1), "deflate|past the end|does not end|plane", plane__size=varint(1))
lie("plane.size", HUGE, "size of a plane", LimitError, plane__packing=u8(1))
lie("plane.size", varint(6 << 20), "plane ends", plane__packing=u8(2))
lie("plane.data", lambda _: deflate(bytes(16 << 20)), "does not end", plane__packing=u8(1), plane__size=varint(16310))
lie("plane.data", b"", "int32s|past the end")

# moments
lie("moments.columns", varint(0), "at least 1")
lie("moments.columns", varint(3), "3 columns do not divide 4")
lie("moments.columns", HUGE, "columns", LimitError)
lie("moments.columns", varint(1), "announced|digest", moments__components=varint(0))
lie("moments.components", varint(3), "components", LimitError)
lie("moments.components", varint(2), "announced")
lie("moments.components", HUGE, "components", LimitError)
lie("moments.seed", varint(1 << 32), "seed", LimitError)
lie("moments.mean", NAN, "a mean of nan")
lie("moments.mean", f32(1e-30), "a mean of")
lie("moments.deviation", INF, "a deviation of inf")
lie("moments.deviation", f32(-1), "a deviation of -1")
lie("moments.threshold", NAN, "a threshold of nan")
lie("moments.threshold", f32(1e38), "a threshold of")
lie("moments/raw_chunk.data", b"\x00\x7c" * 6, "not a number")
lie("moments/raw_chunk.data", add(bytes(2)), "announced")

# lowrank
lie("lowrank.columns", varint(0), "at least 1")
lie("lowrank.columns", varint(4), "4 columns do not divide 6")
lie("lowrank.columns", HUGE, "columns", LimitError)
lie("lowrank.columns", varint(2), "wide|divide")
lie("lowrank.rank", varint(0), "at least 1")
lie("lowrank.rank", varint(1025), "rank", LimitError)
lie("lowrank.rank", varint(1024), "past the end")
lie("lowrank.shifts", bytes([24]), "shift of 24")
lie("lowrank.shifts", bytes([23]), "not exact")
ATTACKS.append(
    Attack("matrix.flags", {"lowrank/matrix.flags": u8(4), "lowrank/head.end": b"\0"}, FormatError, "steps of its rows")
)
lie("lowrank/matrix.step", f32(1e-38), "scale of a row|quantization step")
lie("lowrank/matrix.step", f32(3e38), "scale of a row|quantization step")
lie("lowrank/matrix.columns", varint(1), "wide|past the end|more chunks")
