"""Attacks on packings and on the streams of all codecs."""

from __future__ import annotations

from seed_runtime.errors import DigestError, FormatError, LimitError, SeedError, UnsupportedError
from tests.attacks.support.attack import ATTACKS, HUGE, INF, NAN, Attack, add, attack, cut, one_more
from tests.support.seed_builder import Replacement
from tests.support.spec_bytes import (
    LZMA_PROPERTIES,
    deflate,
    f32,
    i32,
    lzma1,
    u8,
    varint,
)


# Packings, tried on the head of the grid stream
def packed(field: str, data: Replacement, text: str, error: type[SeedError] = FormatError, packing: int = 2) -> None:
    ATTACKS.append(Attack(field, {"grid/head_chunk.packing": u8(packing), "grid/head_chunk.data": data}, error, text))


def _lzma(properties: int = LZMA_PROPERTIES, dictionary_log2: int = 12, after: bytes = b"") -> Replacement:
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
attack("raw_chunk.packing", u8(9), "packing 9 is unknown", UnsupportedError)
attack("raw_chunk.packing", u8(2), "LZMA")
attack("raw_chunk.width", u8(0), "width 0")
attack("raw_chunk.width", u8(3), "width 3")
attack("raw_chunk.width", u8(255), "width 255")
attack("raw_chunk.data", cut, "announced")
attack("raw_chunk.data", add(b"\0"), "announced")

# Symbol streams
attack("part.data", b"PK\x03\x04" + bytes(100), "skeleton", parts__packing=u8(0))
attack("head_chunk.packing", u8(9), "packing 9 is unknown", UnsupportedError)
attack("head_chunk.size", HUGE, "size", LimitError)
attack("head_chunk.size", varint((1 << 20) + 1), "size", LimitError)
attack("head_chunk.size", varint(1 << 20), "announced")
attack("head_chunk.data", cut, "announced")
attack("head.lanes", u8(16), r"2\*\*16 lanes")
attack("head.lanes", u8(255), r"2\*\*255 lanes")
attack("head.lanes", u8(14), "lane states")
attack("head.classes", varint(0), "at least 1")
attack("head.classes", varint(257), "classes", LimitError)
attack("head.classes", varint(256), "sum|past the end|exceeds|symbols", SeedError)
attack("head.classes", varint(1), "columns do not divide|too many|low bits|flags|column")
attack("head.row_steps", cut, "past the end")
attack("head.row_steps", b"\xff\xff\xff", "step of a row", matrix__step=f32(3e38))
attack("head.col_steps", bytes(3), "past the end|class without a table", matrix__flags=u8(15))
attack("head.col_steps", bytes([255] * 4), "assembled weights", DigestError, matrix__flags=u8(15))
attack("head.row_classes", bytes([200, 0, 200]), "class without a table")
attack("head.row_classes", bytes(3), "more chunks")
attack("head.col_classes", bytes([255] * 4), "class without a table")
attack("head.col_classes", add(b"\1"), "1 bytes too many")
attack("table.count", varint(0), "no table to share")
attack("table.count", varint(257), "symbols", LimitError)
attack("table.escape", varint(4096), "escape frequency", LimitError)
attack("table.escape", varint(55), "sum 4095")
attack("table.first", u8(0x7E), "lists the escape")
attack("table.frequency", varint(4096), "frequency", LimitError)
attack("table.frequency", one_more, "sum 4097")
attack("matrix.columns", varint(0), "at least 1")
attack("matrix.columns", varint(5), "5 columns do not divide 12")
attack("matrix.columns", HUGE, "columns", LimitError)
attack("matrix.columns", varint(1), "past the end|too many")
attack("matrix.low_bits", u8(25), "25 low bits")
attack("matrix.low_bits", u8(24), "past the end|packing|unknown", SeedError)
attack("split/matrix.low_bits", u8(7), "7 low bits do not make a float16")
attack("matrix.flags", u8(32), "flags 0x20")
attack("matrix.flags", u8(255), "flags 0xff")
attack("split/matrix.flags", u8(4), "flags 0x4")
attack("split/matrix.flags", u8(8), "flags 0x8")
attack("split/matrix.flags", u8(16), "flags 0x10")
attack("lowrank/matrix.flags", u8(16), "flags 0x10")
attack("matrix.step", f32(0), "quantization step")
attack("matrix.step", f32(-1), "quantization step")
attack("matrix.step", INF, "quantization step")
attack("matrix.step", NAN, "quantization step")
attack("matrix.delay", varint(0), "at least 1")
attack("matrix.delay", varint(7), "delay of 7 is longer than its matrix of 6")
attack("matrix.delay", varint((1 << 18) + 1), "delay", LimitError)
attack("matrix.delay", HUGE, "delay", LimitError)
attack("matrix.delay", b"\x82\0", "shortest form")
attack("matrix.delay", varint(2), "assembled weights", DigestError)
attack("trellis/matrix.flags", u8(0), "1 bytes too many")
attack("data_chunk.states", bytes(8), "state is below")
attack("data_chunk.states", b"\xff" * 8, "words|lanes do not end|escapes")
attack("data_chunk.word_count", HUGE, "words", LimitError)
attack("data_chunk.word_count", varint(3 << 20), "words ends")
attack(
    "data_chunk.words",
    add(bytes(2)),
    "left over|escapes|words|planes|past the end|int32s",
    SeedError,
    data_chunk__word_count=one_more,
)
attack("data_chunk.words", b"", "early", data_chunk__word_count=varint(0))
attack("data_chunk.words", b"\0\0\0\0", "words|lanes do not end|escapes")
attack("data_chunk.escapes", b"", "escapes end early")
attack("data_chunk.escapes", i32(300, 300), "left over")
attack("data_chunk.escapes", b"\0\0\0", "no int32s")
attack("data_chunk.escapes", i32(-(1 << 31)), "assembled weights", DigestError)
attack("plane.packing", u8(9), "packing 9 is unknown", UnsupportedError, plane__size=varint(1))
attack("plane.packing", u8(1), "deflate|past the end|does not end|plane", plane__size=varint(1))
attack("plane.size", HUGE, "size of a plane", LimitError, plane__packing=u8(1))
attack("plane.size", varint(6 << 20), "plane ends", plane__packing=u8(2))
attack(
    "plane.data", lambda _: deflate(bytes(16 << 20)), "does not end", plane__packing=u8(1), plane__size=varint(16310)
)
attack("plane.data", b"", "int32s|past the end")

# moments
attack("moments.columns", varint(0), "at least 1")
attack("moments.columns", varint(3), "3 columns do not divide 4")
attack("moments.columns", HUGE, "columns", LimitError)
attack("moments.columns", varint(1), "announced|digest", moments__components=varint(0))
attack("moments.components", varint(3), "components", LimitError)
attack("moments.components", varint(2), "announced")
attack("moments.components", HUGE, "components", LimitError)
attack("moments.seed", varint(1 << 32), "seed", LimitError)
attack("moments.mean", NAN, "a mean of nan")
attack("moments.mean", f32(1e-30), "a mean of")
attack("moments.deviation", INF, "a deviation of inf")
attack("moments.deviation", f32(-1), "a deviation of -1")
attack("moments.threshold", NAN, "a threshold of nan")
attack("moments.threshold", f32(1e38), "a threshold of")
attack("moments/raw_chunk.data", b"\x00\x7c" * 6, "not a number")
attack("moments/raw_chunk.data", add(bytes(2)), "announced")

# lowrank
attack("lowrank.columns", varint(0), "at least 1")
attack("lowrank.columns", varint(4), "4 columns do not divide 6")
attack("lowrank.columns", HUGE, "columns", LimitError)
attack("lowrank.columns", varint(2), "wide|divide")
attack("lowrank.rank", varint(0), "at least 1")
attack("lowrank.rank", varint(1025), "rank", LimitError)
attack("lowrank.rank", varint(3), "rank: 3 exceeds the limit of 2", LimitError)
attack("lowrank.rank", varint(2), "escape frequency|past the end|wide")
attack("lowrank.shifts", bytes([24]), "shift of 24")
attack("lowrank.shifts", bytes([23]), "not exact")
ATTACKS.append(
    Attack("matrix.flags", {"lowrank/matrix.flags": u8(4), "lowrank/head.end": b"\0"}, FormatError, "steps of its rows")
)
ATTACKS.append(
    Attack(
        "matrix.flags",
        {"lowrank/matrix.flags#1": u8(8), "lowrank/head.end": b"\0"},
        FormatError,
        "steps of its columns",
    )
)
ATTACKS.append(
    Attack(
        "head.col_steps",
        {"lowrank/matrix.flags": u8(8), "lowrank/head.col_steps": b"\0\xff\0", "lowrank/matrix.step": f32(2.0**80)},
        FormatError,
        "scale of a row",
    )
)
attack("lowrank/matrix.step", f32(1e-38), "scale of a row|quantization step")
attack("lowrank/matrix.step", f32(3e38), "scale of a row|quantization step")
attack("lowrank/matrix.columns", varint(1), "wide|past the end|more chunks")

# integers
attack("integers.widths", u8(0), "integers of 0 bits")
attack("integers.widths", u8(3), "integers of 3 bits")
attack("integers.widths", u8(16), "integers of 16 bits")
attack("integers.widths", u8(2), "early|lanes do not end|left over|more than 2 bits")
attack("integers.widths", u8(8), "early|lanes do not end|left over")
attack("integers/matrix.step", f32(0.5), "a step other than 1")
attack("integers/matrix.columns", varint(3), "3 columns do not divide 8")
ATTACKS.append(
    Attack("matrix.flags", {"integers/matrix.flags": u8(4), "integers/head.end": b"\0\0"}, FormatError, "other than 1")
)
ATTACKS.append(
    Attack("matrix.flags", {"integers/matrix.flags": u8(8), "integers/head.end": bytes(4)}, FormatError, "other than 1")
)

# adaptive
attack("adaptive.lanes", u8(16), r"2\*\*16 lanes")
attack("adaptive.lanes", u8(14), "lane states")
attack("adaptive.row_steps", b"", "past the end")
attack("adaptive.row_steps", b"\xff\xff\xff", "step of a row", adaptive_matrix__step=f32(3e38))
attack("adaptive.col_steps", cut, "past the end")
attack("adaptive.col_steps", add(b"\0"), "1 bytes too many")
attack("adaptive.col_steps", bytes([255] * 6), "assembled weights", DigestError)
attack("adaptive_matrix.columns", varint(0), "at least 1")
attack("adaptive_matrix.columns", varint(4), "4 columns do not divide 18")
attack("adaptive_matrix.columns", HUGE, "columns", LimitError)
attack("adaptive_matrix.taps", varint(0), "at least 1")
attack("adaptive_matrix.taps", varint(4), "4 taps do not divide 6")
attack("adaptive_matrix.taps", varint(7), "taps", LimitError)
attack("adaptive_matrix.taps", HUGE, "taps", LimitError)
attack("adaptive_matrix.width", varint(0), "at least 1")
attack("adaptive_matrix.width", varint(3), "width", LimitError)
attack("adaptive_matrix.flags", u8(32), "flags 0x20")
attack("adaptive_matrix.flags", u8(255), "flags 0xff")
attack("adaptive_matrix.flags", u8(15), "bytes too many")
attack("adaptive_matrix.step", f32(0), "quantization step")
attack("adaptive_matrix.step", INF, "quantization step")
attack("adaptive_matrix.step", NAN, "quantization step")
attack("adaptive_matrix.delay", varint(0), "at least 1")
attack("adaptive_matrix.delay", varint(19), "delay of 19 is longer than its matrix of 18")
attack("adaptive_matrix.delay", HUGE, "delay", LimitError)
attack("adaptive_matrix.delay", varint(2), "assembled weights", DigestError)
attack("adaptive_matrix.live_rows", u8(0), "share of live rows")
attack("adaptive_matrix.live_rows", u8(1), "words|lanes do not end|escape")
attack("adaptive_matrix.live_channels", u8(0), "share of live rows or channels")
attack("adaptive_matrix.live_channels", u8(255), "words|lanes do not end|escape")
attack("adaptive_data.states", bytes(8), "state is below")
attack("adaptive_data.states", b"\xff" * 8, "words|lanes do not end|escape")
attack("adaptive_data.word_count", HUGE, "words", LimitError)
attack("adaptive_data.word_count", varint(3 << 20), "words ends")
attack("adaptive_data.words", add(bytes(2)), "left over", adaptive_data__word_count=one_more)
attack("adaptive_data.words", b"", "early", adaptive_data__word_count=varint(0))
attack("adaptive_data.escapes", b"", "past the end|escape ends")
attack("adaptive_data.escapes", add(b"\0"), "1 bytes too many")
attack("adaptive_data.escapes", varint((1 << 31) - 15), "escape", LimitError)
attack("adaptive_data.escapes", b"\x82\0", "shortest form")
attack("adaptive_data.escapes", varint((1 << 31) - 16), "assembled weights", DigestError)
