"""Files with ranges left out: bytes by hand, reads, and what is refused."""

from __future__ import annotations

import struct

import pytest

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import TENSORS_MAX
from seed_runtime.skeletons.cut_file import CutFile, Range, front_bytes

SKELETON = bytes.fromhex(
    "02000000"  # two ranges
    "05000000 06000000"  # five bytes before the first one, six between it and the second one
    "0100 0000"  # they belong to holes 1 and 0
    "aa 02000000 bbcc 03000000 ddeeff"  # a byte, 2, two bytes, 3, three bytes
)


def test_ranges_follow_the_numbers_in_front_of_them() -> None:
    file = CutFile(memoryview(SKELETON))
    assert file.ranges == [Range(13, 3), Range(5, 2)]
    assert file.size == 19
    assert [(start, piece.hex()) for start, piece in file.kept] == [
        (0, "aa02000000"),
        (7, "bbcc03000000"),
        (16, "ddeeff"),
    ]
    assert front_bytes(2) == 16


def test_what_was_kept_is_read_by_its_place_in_the_whole_file() -> None:
    file = CutFile(memoryview(SKELETON))
    for offset, size, expected in ((0, 1, "aa"), (1, 4, "02000000"), (7, 2, "bbcc"), (16, 3, "ddeeff"), (19, 0, "")):
        assert file.read(offset, size, "it").hex() == expected


@pytest.mark.parametrize(
    ("offset", "size"), [(4, 2), (5, 1), (6, 1), (12, 2), (14, 1), (16, 4), (20, 0), (100, 1), (-1, 1)]
)
def test_a_read_that_touches_a_range_or_what_is_outside_is_refused(offset: int, size: int) -> None:
    with pytest.raises(FormatError):
        CutFile(memoryview(SKELETON)).read(offset, size, "it")


def test_a_whole_file_has_no_ranges() -> None:
    file = CutFile.whole(memoryview(b"abc"))
    assert (file.size, file.ranges, bytes(file.read(0, 3, "it"))) == (3, [], b"abc")


@pytest.mark.parametrize("size", range(len(SKELETON) - 3))
def test_a_cut_skeleton_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        CutFile(memoryview(SKELETON[:size])).read(16, 3, "it")


@pytest.mark.parametrize(
    ("place", "data", "problem"),
    [
        (4, struct.pack("<I", 3), "no size in front"),
        (4, struct.pack("<I", 1 << 31), "reach past its end"),
        (8, struct.pack("<I", 10), "reach past its end"),
        (12, struct.pack("<HH", 0, 0), "each hole once"),
        (12, struct.pack("<HH", 2, 0), "each hole once"),
        (17, struct.pack("<I", 0), "is empty"),
    ],
)
def test_a_table_that_lies_is_refused(place: int, data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        CutFile(memoryview(SKELETON[:place] + data + SKELETON[place + len(data) :]))


def test_sizes_beyond_a_flatbuffer_are_refused_before_anything_is_allocated() -> None:
    many = struct.pack("<I", TENSORS_MAX + 1) + bytes(100)
    with pytest.raises(LimitError, match="ranges"):
        CutFile(memoryview(many))
    with pytest.raises(LimitError, match="size of the model"):
        CutFile(memoryview(SKELETON[:17] + struct.pack("<I", 0xFFFFFFFF) + SKELETON[21:]))
