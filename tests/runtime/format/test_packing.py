"""Packings, by bytes written by hand: RFC 1951 and the LZMA specification, not our encoder."""

from __future__ import annotations

import lzma
import tracemalloc
import zlib

import pytest

from seed_runtime.errors import FormatError, LimitError, UnsupportedError
from seed_runtime.format.packing import DEFLATE, LZMA, STORED, unpack

# One final block with fixed codes (bits 1, 10): 'a' is 0x30 + 97 = 10010001, and so on; end of block 0000000.
ABC_FIXED = bytes.fromhex("4b 4c 4a 06 00")
# One final stored block: 01, length 3, its complement, and the bytes.
ABC_STORED = bytes.fromhex("01 03 00 fc ff 61 62 63")


def test_stored_bytes_are_themselves() -> None:
    assert bytes(unpack(STORED, memoryview(b"abc"), 3, "here")) == b"abc"
    assert bytes(unpack(STORED, memoryview(b""), 0, "here")) == b""


@pytest.mark.parametrize("data", [ABC_FIXED, ABC_STORED], ids=["fixed codes", "stored block"])
def test_raw_deflate_by_hand(data: bytes) -> None:
    assert unpack(DEFLATE, memoryview(data), 3, "here") == b"abc"


def raw_lzma(data: bytes, dictionary_log2: int = 12, **options: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << dictionary_log2, "lc": 3, "lp": 0, "pb": 2, **options}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def test_raw_lzma_is_what_stands_behind_the_header_of_an_lzma_file() -> None:
    # 13 bytes: the property byte (93 = 5d), the dictionary (u32), and a size of -1 for "until the end marker".
    alone = lzma.compress(b"seedseedseed", lzma.FORMAT_ALONE)
    assert alone[0] == 0x5D
    assert alone[5:13] == b"\xff" * 8
    assert unpack(LZMA, memoryview(b"\x5d\x14" + alone[13:]), 12, "here") == b"seedseedseed"


@pytest.mark.parametrize(("lc", "lp", "pb"), [(0, 0, 0), (3, 0, 2), (4, 0, 4), (0, 4, 1), (2, 2, 3)])
def test_the_property_byte_holds_three_numbers(lc: int, lp: int, pb: int) -> None:
    data = bytes(range(64)) * 8
    packed = bytes([(pb * 5 + lp) * 9 + lc, 12]) + raw_lzma(data, lc=lc, lp=lp, pb=pb)
    assert unpack(LZMA, memoryview(packed), len(data), "here") == data


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
def test_any_size_unpacks_to_itself(size: int) -> None:
    data = bytes(index * index % 251 for index in range(min(size, 5000))).ljust(size, b"\7")
    encoder = zlib.compressobj(6, zlib.DEFLATED, -15)
    assert unpack(DEFLATE, memoryview(encoder.compress(data) + encoder.flush()), size, "here") == data
    assert unpack(LZMA, memoryview(b"\x5d\x14" + raw_lzma(data, 20)), size, "here") == data


@pytest.mark.parametrize("size", [0, 2, 4, 1 << 20])
def test_a_wrong_size_is_refused(size: int) -> None:
    for packing, data in ((STORED, b"abc"), (DEFLATE, ABC_FIXED), (LZMA, b"\x5d\x0c" + raw_lzma(b"abc"))):
        with pytest.raises(FormatError, match="here"):
            unpack(packing, memoryview(data), size, "here")


def test_a_packing_cut_at_any_byte_is_refused() -> None:
    data = bytes(range(200)) * 3
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    for packing, whole in (
        (DEFLATE, encoder.compress(data) + encoder.flush()),
        (LZMA, b"\x5d\x0c" + raw_lzma(data)),
    ):
        assert unpack(packing, memoryview(whole), len(data), "here") == data
        for size in range(len(whole)):
            with pytest.raises(FormatError):
                unpack(packing, memoryview(whole[:size]), len(data), "here")


def test_bytes_behind_the_end_of_a_stream_are_refused() -> None:
    for packing, whole in ((DEFLATE, ABC_FIXED), (LZMA, b"\x5d\x0c" + raw_lzma(b"abc"))):
        with pytest.raises(FormatError, match="does not end with"):
            unpack(packing, memoryview(whole + b"\0"), 3, "here")


def test_the_wrappers_of_zlib_gzip_and_xz_are_refused() -> None:
    for data in (zlib.compress(b"abc"), zlib.compress(b"abc", wbits=31), lzma.compress(b"abc")):
        for packing in (DEFLATE, LZMA):
            with pytest.raises(FormatError):
                unpack(packing, memoryview(data), 3, "here")


@pytest.mark.parametrize("log2", [21, 26, 31, 255])
def test_a_dictionary_beyond_the_limit_is_refused_before_a_decoder_is_made(log2: int) -> None:
    data = memoryview(bytes([0x5D, log2]) + raw_lzma(b"abc"))
    tracemalloc.start()
    with pytest.raises(LimitError, match="LZMA dictionary"):
        unpack(LZMA, data, 3, "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


@pytest.mark.parametrize("packing", [3, 4, 255])
def test_an_unknown_packing_is_newer_than_this_runtime(packing: int) -> None:
    with pytest.raises(UnsupportedError, match=f"packing {packing} is unknown.*update"):
        unpack(packing, memoryview(b"abc"), 3, "here")


@pytest.mark.parametrize("packing", [DEFLATE, LZMA])
def test_a_bomb_is_stopped_at_the_size_that_was_announced(packing: int) -> None:
    zeros = bytes(8 << 20)
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = encoder.compress(zeros) + encoder.flush() if packing == DEFLATE else b"\x5d\x0c" + raw_lzma(zeros)
    tracemalloc.start()
    with pytest.raises(FormatError, match="does not end with"):
        unpack(packing, memoryview(bomb), 1000, "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18
