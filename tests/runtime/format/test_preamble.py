"""The preamble, by bytes written by hand from SPEC.md."""

from __future__ import annotations

import hashlib
import sys

import pytest

from seed_runtime.errors import DigestError, FormatError, LimitError, NotASeedError, UnsupportedError
from seed_runtime.format import preamble
from seed_runtime.limits import FILE_MAX, HEADER_MAX
from tests.support.project import run_checked

HEADER = b"header"
FRONT = bytes.fromhex("89 53 45 45 44 0d 0a 1a  01 00  00 00  06 00 00 00  45 00 00 00 00 00 00 00")
WHOLE = FRONT + hashlib.sha256(FRONT + HEADER).digest()


def with_front(place: int, data: bytes) -> bytes:
    """Return a preamble with other bytes from `place` on, its digest right."""
    front = FRONT[:place] + data + FRONT[place + len(data) :]
    return front + hashlib.sha256(front + HEADER).digest()


def test_a_preamble_written_by_hand_is_read_and_written() -> None:
    found = preamble.parse(WHOLE, "m.seed")
    assert (found.header_size, found.file_size, found.body_size) == (6, 0x45, 0x45 - 56 - 6)
    assert (found.version, found.flags, found.digest) == (1, 0, WHOLE[24:])
    found.check(HEADER, "m.seed")
    assert preamble.serialize(HEADER, found.body_size) == WHOLE
    assert len(WHOLE) == preamble.PREAMBLE_BYTES


def test_only_a_seed_begins_like_one() -> None:
    assert all(preamble.begins_like_a_seed(WHOLE[:size]) for size in range(len(WHOLE)))
    assert not preamble.begins_like_a_seed(b"\x89PNG")
    with pytest.raises(NotASeedError):
        preamble.parse(b"\x89PNG" + WHOLE[4:], "m.seed")


def test_sizes_are_checked_before_the_digest() -> None:
    with pytest.raises(LimitError, match="header size"):
        preamble.parse(with_front(12, (HEADER_MAX + 1).to_bytes(4, "little")), "m.seed")
    with pytest.raises(LimitError, match="file size"):
        preamble.parse(with_front(16, (FILE_MAX + 1).to_bytes(8, "little")), "m.seed")


def test_a_cut_preamble_is_refused() -> None:
    for size in range(preamble.PREAMBLE_BYTES):
        with pytest.raises(FormatError):
            preamble.parse(WHOLE[:size], "m.seed")


def test_a_flipped_bit_is_damage_and_not_a_newer_version() -> None:
    for place in (8, 9, 10, 11):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 2
        with pytest.raises(DigestError):
            preamble.parse(damaged, "m.seed").check(HEADER, "m.seed")
    for place in (8, 10):
        with pytest.raises(UnsupportedError, match="newer than this runtime"):
            preamble.parse(with_front(place, b"\7"), "m.seed").check(HEADER, "m.seed")


def test_reading_a_preamble_needs_no_numpy() -> None:
    script = "import sys; from seed_runtime.format import preamble; print('numpy' in sys.modules)"
    assert run_checked([sys.executable, "-I", "-c", script]).strip() == "False"
