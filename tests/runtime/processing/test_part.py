"""The part "processing", by bytes written by hand from SPEC.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format.parts import processing as part
from seed_runtime.limits import ATTACHMENTS_MAX, DESCRIPTION_MAX, PROCESSING_RAW_MAX

SPEC = Path(__file__).resolve().parents[3] / "SPEC.md"

TWO_FILES = bytes.fromhex(
    "02 7b 7d"  # description_size 2, "{}"
    "02"  # attachments
    "01 61 03 78 0a 79"  # "a", 3 bytes "x\ny"
    "02 61 62 00"  # "ab", empty
)

ATTACKS = {
    "description_size": (b"\x03{}", "ends 1 bytes past the end"),
    "description": (b"\x02{", "description ends"),
    "attachments": (b"\x02{}\x11", "exceeds the limit of 16"),
    "attachment": (b"\x02{}\x02\x02ab\x00\x01a\x00", "'a' may not stand behind 'ab'"),
    "attachment_size": (b"\x02{}\x01\x01a\x81\x80\x80\x08", "exceeds the limit of 16,777,216"),
    "attachment_data": (b"\x02{}\x01\x01a\x04abc", "attachment 'a' ends 1 bytes past the end"),
}


def test_a_part_is_the_bytes_of_the_specification() -> None:
    description, attachments = part.unpack(TWO_FILES)
    assert description == b"{}"
    assert {name: bytes(data) for name, data in attachments.items()} == {"a": b"x\ny", "ab": b""}
    assert part.pack(b"{}", {"ab": b"", "a": b"x\ny"}) == TWO_FILES
    assert part.pack(b"{}", {}) == bytes.fromhex("02 7b 7d 00")


def test_every_field_of_the_specification_has_an_attack() -> None:
    (table,) = re.findall(r"^```part-fields processing\n(.*?)^```$", SPEC.read_text(), re.MULTILINE | re.DOTALL)
    column = table.index("Field\n")
    rows = [line for line in table.splitlines()[1:] if line[:1].strip()]
    assert ATTACKS.keys() == {re.split(r"[^a-z_]", row[column:])[0] for row in rows}


@pytest.mark.parametrize("field", ATTACKS)
def test_a_wrong_field_is_refused(field: str) -> None:
    data, problem = ATTACKS[field]
    with pytest.raises(FormatError, match=re.escape(problem)):
        part.unpack(data)


@pytest.mark.parametrize("size", range(len(TWO_FILES)))
def test_a_part_cut_at_any_byte_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        part.unpack(TWO_FILES[:size])


def test_bytes_behind_the_last_attachment_and_names_that_stand_twice_are_refused() -> None:
    with pytest.raises(FormatError, match="1 bytes too many"):
        part.unpack(TWO_FILES + b"\0")
    with pytest.raises(FormatError, match="'a' may not stand behind 'a'"):
        part.unpack(b"\x02{}\x02\x01a\x00\x01a\x00")
    with pytest.raises(FormatError, match="may not stand behind"):
        part.unpack(b"\x02{}\x01\x00\x00")
    with pytest.raises(ValueError, match="printable"):
        part.pack(b"{}", {"a\n": b""})


def test_sizes_are_refused_before_anything_is_read() -> None:
    with pytest.raises(LimitError) as refused:
        part.unpack(b"\x81\x80\x04")
    assert (refused.value.value, refused.value.limit) == (DESCRIPTION_MAX + 1, DESCRIPTION_MAX)
    assert (ATTACHMENTS_MAX, PROCESSING_RAW_MAX) == (16, 16 << 20)
