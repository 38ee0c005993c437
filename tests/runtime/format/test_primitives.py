"""Primitive fields, by bytes written by hand from SPEC.md, "Primitive types"."""

from __future__ import annotations

import math

import pytest

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor

TOP = (1 << 63) - 1


def cursor(data: str | bytes) -> Cursor:
    return Cursor(bytes.fromhex(data) if isinstance(data, str) else data, "here")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0),
        ("01", 1),
        ("7f", 127),
        ("80 01", 128),
        ("ac 02", 300),
        ("ff 7f", 16383),
        ("80 80 01", 16384),
        ("ff ff ff ff ff ff ff ff 7f", TOP),
    ],
)
def test_a_varint_is_seven_bits_a_byte_low_ones_first(data: str, value: int) -> None:
    reader = cursor(data)
    assert reader.varint("n", limit=TOP) == value
    reader.end()
    assert primitives.varint(value) == bytes.fromhex(data)


@pytest.mark.parametrize("data", ["80 00", "81 00", "ff 80 00", "80 80 80 80 00"])
def test_a_varint_that_is_padded_is_refused(data: str) -> None:
    with pytest.raises(FormatError, match="shortest form"):
        cursor(data).varint("n", limit=TOP)


@pytest.mark.parametrize("data", ["ff ff ff ff ff ff ff ff ff 01", "80" * 9 + "01", "ff" * 40])
def test_a_varint_of_more_than_nine_bytes_is_refused(data: str) -> None:
    with pytest.raises(FormatError, match="longer than 9 bytes"):
        cursor(data).varint("n", limit=TOP)


@pytest.mark.parametrize("data", ["", "80", "ff ff"])
def test_a_varint_that_is_cut_is_refused(data: str) -> None:
    with pytest.raises(FormatError, match="past the end"):
        cursor(data).varint("n", limit=TOP)


def test_a_varint_has_a_limit_and_a_least_value() -> None:
    assert cursor("05").varint("n", limit=5, least=5) == 5
    with pytest.raises(LimitError, match="here: n: 5 exceeds the limit of 4"):
        cursor("05").varint("n", limit=4)
    with pytest.raises(FormatError, match="at least 6"):
        cursor("05").varint("n", limit=9, least=6)


def test_what_no_varint_holds_is_not_written() -> None:
    for value in (-1, 1 << 63):
        with pytest.raises(ValueError, match="varint"):
            primitives.varint(value)


def test_integers_and_floats_are_little_endian() -> None:
    reader = cursor("34 12  78 56 34 12  00 00 80 3f  00 00 c0 7f")
    assert (reader.uint(2, "a"), reader.uint(4, "b"), reader.f32("c")) == (0x1234, 0x12345678, 1.0)
    assert math.isnan(reader.f32("d"))
    assert primitives.uint(0x1234, 2) + primitives.f32(1.0) == bytes.fromhex("34 12 00 00 80 3f")


def test_nothing_is_read_past_the_end() -> None:
    reader = cursor("01 02 03")
    with pytest.raises(FormatError, match="field ends 1 bytes past the end"):
        reader.take(4, "field")
    assert bytes(reader.take(3, "field")) == b"\1\2\3"
    assert bytes(reader.take(0, "nothing")) == b""


def test_bytes_that_are_left_are_refused() -> None:
    reader = cursor("01 02")
    reader.uint(1, "a")
    assert reader.remaining == 1
    with pytest.raises(FormatError, match="1 bytes too many"):
        reader.end()


@pytest.mark.parametrize("text", ["", "doorbell", "größe 10⁻³", "門鈴", "🐥", "a b", "x" * 255])
def test_a_string_is_its_length_and_utf8(text: str) -> None:
    raw = text.encode()
    data = primitives.varint(len(raw)) + raw
    assert primitives.string(text) == data
    reader = cursor(data)
    assert reader.string("s") == text
    reader.end()


@pytest.mark.parametrize("code", [0, 9, 10, 0x1B, 0x1F, 0x7F, 0x9B, 0x200E, 0x2028, 0x2029, 0x202E, 0x2066, 0x2069])
def test_a_string_that_could_move_the_cursor_or_turn_the_text_is_refused(code: int) -> None:
    raw = f"a{chr(code)}b".encode()
    with pytest.raises(FormatError, match="can't be printed"):
        cursor(primitives.varint(len(raw)) + raw).string("s")
    with pytest.raises(ValueError, match="printable"):
        primitives.string(f"a{chr(code)}b")


def test_what_a_string_may_hold_does_not_depend_on_the_version_of_unicode() -> None:
    # Not assigned in the Unicode of any Python that this runs on.
    assert primitives.printable("\U0001faff\U000e0fff")


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_a_string_that_is_not_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match="not UTF-8"):
        cursor(primitives.varint(len(raw)) + raw).string("s")


def test_a_string_has_at_most_255_bytes() -> None:
    with pytest.raises(LimitError, match="length of s"):
        cursor(primitives.varint(256) + b"x" * 256).string("s")
    with pytest.raises(ValueError, match="255"):
        primitives.string("ß" * 128)
