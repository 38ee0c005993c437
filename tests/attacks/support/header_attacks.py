"""Attacks on the preamble and the sections of the header."""

from __future__ import annotations

import zlib

from seed_runtime.errors import DigestError, FormatError, LimitError, NotASeedError, SeedError, UnsupportedError
from tests.attacks.support.attack import ATTACKS, HUGE, INF, LONG, NAN, PADDED, Attack, add, attack, cut
from tests.support.spec_bytes import (
    f32,
    number,
    string,
    u8,
    u16,
    u32,
    u64,
    varint,
)

# Preamble
attack("preamble.magic", b"\x89SEED\n\x1a\n", "not a seed", NotASeedError)
attack("preamble.version", u16(2), "version 2 .* newer", UnsupportedError)
attack("preamble.version", u16(0xFFFF), "newer", UnsupportedError)
attack("preamble.flags", u16(1), "flags 0x1", UnsupportedError)
attack("preamble.header_size", u32(0xFFFFFFFF), "header size", LimitError)
attack("preamble.header_size", u32((2 << 20) + 1), "header size", LimitError)
attack("preamble.header_size", u32(2 << 20), "header: it ends after")
attack("preamble.header_size", u32(0), "digest", DigestError)
attack("preamble.file_size", u64((1 << 40) + 1), "file size", LimitError)
attack("preamble.file_size", u64(1 << 63), "file size", LimitError)
attack("preamble.file_size", u64(1 << 20), "bytes of 1,048,576|the file has 1,04")
attack("preamble.file_size", u64(0), "bytes of 0|the file has -")
attack("preamble.digest", bytes(32), "digest", DigestError)

# Sections
attack("section.id", u16(0), "stands behind")
attack("section.id#1", u16(1), "stands behind")
attack("section.id#3", u16(2), "stands behind")
attack("section.id#4", u16(9), "section 0x0009 is unknown", UnsupportedError)
attack("section.id#4", u16(0x8001), "section 0x0005 is missing")
attack("section.size", u32(0xFFFFFFFF), "past the end")
attack("section.size", u32(0), "stands behind|past the end|missing")
attack("section.size#6", lambda original: u32(original[0] - 1), "past the end")
attack(
    "section.payload",
    lambda _: b"",
    "sections",
    LimitError,
    header__end=b"".join(u16(0x8100 + i) + u32(0) for i in range(60)),
)

ATTACKS.append(Attack("section.payload", {"streams.end": b"\0"}, FormatError, "1 bytes too many"))

# SIGNATURE, which the valid seed lacks; attacks on it are in test_signatures.py.
ATTACKS.append(
    Attack("signature.blob", {"header.end": u16(0xFFFF) + u32(8193) + bytes(8193)}, LimitError, "section 0xffff")
)

# MODEL
attack("model.id", string("x" * 256), "length of model id", LimitError)
attack("model.id", HUGE, "length of model id", LimitError)
attack("model.id", varint(200) + b"x", "past the end")
attack("model.id", varint(2) + b"\xc3\x28", "UTF-8")
attack("model.id", string("a\x1b[2Jb"), "can't be printed")
attack("model.id", string("a\nb"), "can't be printed")
attack("model.id", string("\u202egpj"), "can't be printed")
attack("model.version", LONG, "longer than 9 bytes")
attack("model.version", PADDED, "shortest form")
attack("model.feature_level", varint(2), "needs level 2 of the format", UnsupportedError)
attack("model.feature_level", varint(1 << 16), "needs level 65536", UnsupportedError)
attack("model.feature_level", varint((1 << 16) + 1), "feature level", LimitError)
attack("model.parameters", HUGE, "parameters", LimitError)
attack("model.source_bytes", HUGE, "source bytes", LimitError)
attack("model.source_bytes", add(b"\0"), "1 bytes too many")

# WEIGHTS
attack("weights.size", HUGE, "weights size", LimitError)
attack("weights.size", varint(1 << 40), "the holes end at")
attack("weights.size", varint(15), "past the weights file")
attack("weights.digest", bytes(32), "assembled weights", DigestError)
attack("weights.working_bytes", HUGE, "working bytes", LimitError)
attack("weights.working_bytes", add(b"\0"), "1 bytes too many")

# PARTS
attack("parts.count", varint(0), "at least 1")
attack("parts.count", varint(17), "number of parts", LimitError)
attack("parts.count", varint(2), "past the end")
attack("parts.kind", u16(3), "part kind 0x0003 is unknown", UnsupportedError)
attack("parts.kind", u16(2), "skeleton")
attack("parts.kind", u16(0), "part kind 0x0000 is unknown", UnsupportedError)
attack("parts.kind", u16(0x8001), "may not be of kind")
attack("parts.packing", u8(9), "packing 9 is unknown", UnsupportedError)
attack("parts.packing", u8(1), "deflate")
attack("parts.raw_size", HUGE, "raw size of part", LimitError)
attack("parts.raw_size", varint((32 << 20) + 1), "raw size of part", LimitError)
attack("parts.raw_size", varint(32 << 20), "announced")
attack("parts.size", HUGE, "size of part", LimitError)
attack("parts.size", varint(8 << 20), "the file has")
attack("parts.digest", bytes(32), "part 0x0001", DigestError)
attack("parts.digest", add(b"\0"), "1 bytes too many")
_CUT = {"parts__packing": u8(0x80)}
attack("parts.packing", u8(0x80), "past the end|too many")
attack("parts.packing", u8(0x89), "packing 9 is unknown", UnsupportedError, parts__names=string("w"))
attack("parts.names", string("w"), "bytes unpacked", **_CUT)
attack("parts.names", string("x" * 255), "what it says of its tensors takes more", **_CUT, parts__raw_size=varint(999))
attack("parts.names", b"\x01\x1b", "can't be printed", **_CUT)
attack("parts.names", HUGE, "length of names of tensors", LimitError, **_CUT)
attack("parts.names", string("w"), "too many")

# HOLES
attack("holes.count", HUGE, "number of holes", LimitError)
attack("holes.count", varint(9), "past the end|packing|announced|deflate", SeedError)
attack("holes.count", varint(3), "packing|announced|too many|limit|deflate", SeedError)
attack("hole.dtype", u8(99), "dtype 99 is unknown", UnsupportedError)
attack("hole.dtype", u8(8), "dtype 8 is unknown", UnsupportedError)  # strings
attack("hole.dtype", u8(12), "differs in dtype")
for _place, _codec in enumerate(("grid", "split", "moments", "lowrank"), start=1):
    # A type of the same size, in the skeleton as well, that the codec has no business with.
    _code = 5 if _codec == "split" else 6
    _replaced = {f"hole.dtype#{_place}": u8(_code), f"skeleton.type#{_place}": number(2, _code)}
    ATTACKS.append(Attack("hole.dtype", _replaced, FormatError, f"{_codec} does not decode int"))
attack("holes.name_digest", cut, "packing|past the end|unpacked", SeedError)
attack("holes.packing", u8(9), "packing 9 is unknown", UnsupportedError)
attack("holes.packing", u8(1), "deflate")
attack("holes.packing", u8(2), "LZMA")
attack("holes.raw_size", varint((2 << 20) + 1), "size of the records", LimitError)
attack("holes.raw_size", varint(2 << 20), "announced")
attack("holes.raw_size", varint(0), "announced")
attack("holes.data", zlib.compress(bytes(1 << 22), wbits=-15), "does not end with its", holes__packing=u8(1))
ATTACKS.append(Attack("holes.raw_size", {"hole.end": b"\0"}, FormatError, "1 bytes too many"))
attack("hole.rank", varint(9), "rank", LimitError)
attack("hole.rank", varint(0), "rank|unknown|past the end|too many", SeedError)
attack("hole.dimension", varint(0), "at least 1")
attack("hole.dimension", HUGE, "dimension", LimitError)
attack("hole.dimension", varint(1 << 40), "past the weights file")
attack("hole.dimension#1", lambda _: varint(4), "differs in dims|past the weights file")

# STREAMS
attack("streams.count", varint(5000), "number of streams", LimitError)
attack("streams.count", varint(9), "past the end")
attack("streams.count", varint(3), "too many")
attack("streams.codec", u8(0), "codec 0 is unknown", UnsupportedError)
attack("streams.codec", u8(200), "codec 200 is unknown", UnsupportedError)
attack("streams.codec", u8(2), "stream 0")
attack("streams.codec#1", u8(1), "stream 1", SeedError)
attack("streams.codec#2", u8(2), "stream 2")
attack("streams.holes", varint(0), "at least 1")
attack("streams.holes", HUGE, "holes of a stream", LimitError)
attack("streams.holes", varint(2), "the streams fill 9 holes")
attack("streams.chunks", varint(0), "at least 1")
attack("streams.chunks", HUGE, "chunks of a stream", LimitError)
attack("streams.chunks", varint(1 << 17), "past the end|chunk size")
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
attack("streams.chunk_size", HUGE, "chunk size", LimitError)
attack("streams.chunk_size", varint((6 << 20) + 1), "chunk size", LimitError)
attack("streams.chunk_size", varint(6 << 20), "the file has")
attack("streams.chunk_size", varint(0), "the file has")
attack("streams.chunk_digest", bytes(16), "stream 0, chunk 0", DigestError)
attack("streams.chunk_digest", add(b"\0"), "too many|past the end|stream|chunk size", SeedError)

# GOLDEN
attack("golden.seed", LONG, "longer than 9 bytes")
attack("golden.inputs", varint(65), "inputs", LimitError)
attack("golden.inputs", varint(0), "too many|past the end|values|tolerance")
attack("golden_input.kind", u8(4), "kind 4")
attack("golden_input.kind", u8(2), "can't be made", golden_input__dtype=u8(6))
attack("golden_input.dtype", u8(99), "dtype 99")
attack("golden_input.dtype", u8(8), "dtype 8")  # text is supplied, never generated
attack("golden_input.dtype", u8(21), "dtype 21")  # two elements to a byte
attack("golden_input.dtype", u8(16), "can't be made", golden_input__kind=u8(1), golden_input__b=f32(1))
attack("golden_input.rank", varint(9), "rank", LimitError)
attack("golden_input.dimension", HUGE, "dimension", LimitError)
ATTACKS.append(
    Attack(
        "golden_input.dimension",
        {f"golden_input.dimension#{axis}": varint(size) for axis, size in ((1, 0), (2, 1 << 22))}
        | {"golden_input.dimension": varint(2)},
        LimitError,
        "elements of an input",
    )
)
attack("golden_input.dimension", varint(1 << 22), "elements of an input", LimitError)
attack("golden_input.dimension#1", varint(4), "its inputs are not the model's: 'x' differs")
attack("golden_input.dimension", varint(0), "past the end|kind|can't be made|too many", golden_input__rank=varint(2))
attack("golden_input.dtype", u8(11), "its inputs are not the model's: 'x' differs")
attack("golden.inputs", varint(2), "unknown|past the end|not the model's|exceeds")
attack("golden_input.a", NAN, "can't be made")
attack(
    "golden_input.a",
    f32(300),
    "can't be made",
    golden_input__kind=u8(3),
    golden_input__b=f32(301),
    golden_input__dtype=u8(2),
)
attack("golden_input.b", INF, "can't be made")
attack("golden_input.b", f32(-1), "can't be made", golden_input__kind=u8(1))
attack(
    "golden_input.data", b"\0" * 7, "past the end", golden_input__kind=u8(255), golden_input__a=b"", golden_input__b=b""
)
attack("golden.outputs", varint(65), "outputs", LimitError)
attack("golden.outputs", varint(2), "past the end")
attack("golden_output.kind", u8(0), "too many")
attack("golden_output.kind", u8(2), "too many")
attack("golden_output.kind", u8(3), "an output of kind 3 is unknown")
attack("golden_output.digest", b"\0" * 9, "tolerance|values|outliers|past the end|too many", golden_output__kind=u8(2))
attack("golden_output.size", HUGE, "elements of an output", LimitError)
attack("golden_output.size", varint(1), "4 values and 0 outliers of an output with 1")
attack("golden_output.tolerance", NAN, "tolerance")
attack("golden_output.tolerance", INF, "tolerance")
attack("golden_output.tolerance", f32(-1), "tolerance")
attack("golden_output.norm", f32(-1), "norm")
attack("golden_output.norm", NAN, "norm")
attack("golden_output.norm", INF, "norm")
attack("golden_output.outliers", varint(13), "13 outliers of an output with 12")
attack("golden_output.outliers", HUGE, "outliers", LimitError)
attack("golden_output.count", varint(65), "values", LimitError)
attack("golden_output.values", cut, "past the end")
attack("golden_output.values", add(bytes(1024)), "section 0x8006", LimitError)

# FOOTPRINT
attack("footprint.axes", varint(17), "free dimensions", LimitError)
attack("footprint.axes", varint(0), "FOOTPRINT")
attack("footprint.input", varint(2) + b"\xff\xff", "UTF-8")
attack("footprint.axis", varint(8), "axis", LimitError)
attack("footprint.input", string("z"), "no input of the model is 'z' with an axis 0")
attack("footprint.axis", varint(3), "no input of the model is 'x' with an axis 3")
attack("footprint.points", varint(0), "at least 1")
attack("footprint.points", varint(17), "points", LimitError)
attack("footprint.point", varint(8), "stands twice")
attack("footprint.point", HUGE, "size", LimitError)
attack("footprint.modes", varint(0), "at least 1")
attack("footprint.modes", varint(9), "modes", LimitError)
attack("footprint.modes", varint(2), "past the end")
attack("footprint.mode", string("\x07"), "can't be printed")
attack("footprint.opening", HUGE, "opening", LimitError)
attack("footprint.mapped", HUGE, "mapped", LimitError)
attack("footprint.peak", HUGE, "peak", LimitError)
attack("footprint.peak", varint(18), "falls when the input grows")
attack("footprint.peak#1", add(bytes(4096)), "section 0x8007", LimitError)
