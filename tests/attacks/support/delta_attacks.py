"""Attacks on what only seeds with a base have, by the fields of `delta_builder`."""

from __future__ import annotations

from seed_runtime.errors import DigestError, FormatError, LimitError, SeedError, UnsupportedError, WrongBaseError
from tests.attacks.support.attack import ATTACKS, HUGE, INF, LONG, NAN, PADDED, Attack, add, cut
from tests.support.seed_builder import Replacement
from tests.support.spec_bytes import f32, string, u8, u16, u32, varint


def _attack(
    field: str, value: Replacement, text: str, error: type[SeedError] = FormatError, **more: Replacement
) -> None:
    replaced = {field: value} | {key.replace("__", "."): other for key, other in more.items()}
    ATTACKS.append(Attack(field.partition("#")[0], replaced, error, text, has_base=True))


# BASE
_attack("base.digest", bytes(32), "builds on the seed with the digest 000000", WrongBaseError)
_attack("base.digest", cut, "too many|past the end|digest|depth", SeedError)
_attack("base.depth", varint(0), "at least 1")
_attack("base.depth", varint(2), "a depth of 2 is not one more")
_attack("base.depth", varint(32), "a depth of 32 is not one more")
_attack("base.depth", varint(33), "depth of the chain", LimitError)
_attack("base.depth", HUGE, "depth of the chain", LimitError)
_attack("base.depth", LONG, "longer than 9 bytes")
_attack("base.depth", PADDED, "shortest form")
_attack("base.depth", add(b"\0"), "1 bytes too many")
# Without BASE, or with one of PARTS and HOLES, the other is missing.
_attack("section.id", u16(0x8008), "section 0x0003 is missing", section__id=u16(1), **{"section__id#3": u16(0x8008)})
_attack("section.id", u16(1), "section 0x0003 is missing", **{"section__id#2": u16(4)})
_attack("section.id", u16(1), "section 0x0004 is missing", **{"section__id#2": u16(3)})
_attack("weights.size", varint(8), "8 bytes are not the base's")
_attack("streams.holes", varint(6), "the streams fill 6 holes, there are 8")
_attack("streams.holes", varint(1 << 15), "the streams fill 32768 holes, there are 8")

# TUNED
_attack("tuned.mode", string("a\x1b[2J"), "can't be printed")
_attack("tuned.mode", HUGE, "length of mode", LimitError)
_attack("tuned.metric", string("x" * 256), "length of metric", LimitError)
_attack("tuned.metric", string(""), "8 bytes too many")
_attack("tuned.before", NAN, "scores of nan")
_attack("tuned.before", INF, "scores of inf")
_attack("tuned.after", NAN, "and nan are not valid")
_attack("tuned.after", cut, "past the end")
_attack("tuned.after", add(b"\0"), "1 bytes too many")

# Codec 7
_attack("delta.modes", bytes([1, 4, 2, 3, 0, 1, 5, 0]), "mode 5 of a tensor is unknown")
_attack("delta.modes", bytes([255] * 8), "mode 255 of a tensor is unknown")
_attack("delta.modes", bytes(8), "bytes too many")
_attack("delta.modes", bytes([1, 4, 2, 3, 1, 1, 0, 0]), "past the end|columns|bytes too many|step", SeedError)
_attack("delta.modes", bytes([1, 4, 2, 3, 0, 0, 0, 0]), "bytes too many")
_attack("delta.modes", bytes([2, 4, 2, 3, 0, 1, 0, 0]), "have the step 1 and no other")
_attack("delta.modes", bytes([1, 4, 2, 2, 0, 1, 0, 0]), "have the step 1 and no other")
_attack("delta.modes", bytes([1, 4, 2, 3, 0, 2, 0, 0]), "have the step 1 and no other")
_attack("delta.modes", bytes([1, 4, 1, 3, 0, 1, 0, 0]), "assembled weights", DigestError)
_attack("delta.modes", bytes([1, 4, 2, 1, 0, 1, 0, 0]), "assembled weights", DigestError)
_attack("delta.modes", b"", "mode|past the end|lanes", SeedError)
_attack("delta.top", u8(0), "words|lanes do not end|escapes|planes|left over|assembled weights", SeedError)
_attack("delta.top", u8(255), "words|lanes do not end|escapes|planes|left over|assembled weights", SeedError)
_attack("delta.span", u8(2), "add up to a class without a table")
_attack("delta.span", u8(255), "add up to a class without a table")
_attack("delta.span", cut, "past the end|too many|lanes|class|exceeds", SeedError)
_attack("bits.size", u8(0), "bits of its symbols end early|int32s", bits__data=b"")
_attack("bits.size", varint(7 << 20), "size of bits", LimitError)
_attack("bits.size", HUGE, "size of bits", LimitError)
_attack("bits.size", u8(2), "1 bytes of bits are left over", bits__data=bytes([1, 0]))
_attack("bits.data", u8(0), "assembled weights", DigestError)
_attack("bits.data", cut, "no int32s")
_attack("matrix.step", f32(2.0**-102), "too small for differences")
_attack("matrix.step", f32(2.0**-101), "assembled weights", DigestError)
_attack("matrix.step#1", f32(2.0), "have the step 1 and no other")
_attack("matrix.step#2", f32(2.0), "have the step 1 and no other")
_attack("matrix.flags#3", u8(32), "flags 0x20")
_attack(
    "streams.codec",
    u8(2),
    "does not decode uint8|classes is 0|lanes|sum|table|past the end|too many|exceeds",
    SeedError,
)
_attack("streams.chunk_digest", bytes(16), "stream 0, chunk 0", DigestError)
_attack("weights.digest", bytes(32), "assembled weights", DigestError)
_attack("section.size", u32(0xFFFFFFFF), "past the end")
_attack("model.feature_level", varint(2), "needs level 2", UnsupportedError)
