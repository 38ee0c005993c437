"""Low planes of a chunk by hand: joined for small matrices, one by one for the others."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.codecs.encode.contexts import Classes
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.planes import packed_planes
from seed_runtime.codecs.planes import JOINED_BELOW, Span, read_planes
from seed_runtime.errors import FormatError
from seed_runtime.format.primitives import Cursor
from tests.support.spec_bytes import deflate, varint

LARGE = np.arange(4096, dtype=np.uint32) % 3 % 2
FIRST = np.array([0x101, 0x002, 0x1FF], np.uint32)
SECOND = np.array([1, 2], np.uint32)
SPANS = {0: Span(1, 8, 4104), 2: Span(9, 0, 3), 3: Span(2, 5, 7)}
"""A large matrix, and two small ones of 9 and 2 low bits; matrix 1 has none."""

# The byte plane of the first small matrix; bits 8 and 0 of both: 1 0 1 and 1 0; bit 1 of the second: 0 1.
JOINED = b"\0\x01\x02\xff" + b"\0\x05\x01" + b"\0\x02"
ALONE = b"\0" + np.packbits(LARGE.astype(np.uint8), bitorder="little").tobytes()


def cursor(data: bytes) -> Cursor:
    return Cursor(data, "planes")


def test_planes_of_small_matrices_are_joined_by_position_before_those_of_large_ones() -> None:
    payload = cursor(JOINED + ALONE + b"rest")
    planes = read_planes(payload, SPANS)
    assert payload.remaining == 4
    assert planes[2].low(0, 3).tolist() == FIRST.tolist()
    assert planes[3].low(5, 7).tolist() == SECOND.tolist()
    assert planes[3].low(6, 7).tolist() == SECOND[1:].tolist()
    assert planes[0].low(8, 4104).tolist() == LARGE.tolist()
    assert planes[0].low(100, 333).tolist() == LARGE[92:325].tolist()


def test_joined_planes_may_be_packed() -> None:
    packed = deflate(b"\x01\x02\xff")
    planes = read_planes(cursor(b"\x01" + varint(len(packed)) + packed + JOINED[4:] + ALONE), SPANS)
    assert planes[2].low(0, 3).tolist() == FIRST.tolist()


@pytest.mark.parametrize("size", range(len(JOINED + ALONE)))
def test_planes_cut_at_any_byte_are_refused(size: int) -> None:
    if size < 20 or size % 100 == 0:
        with pytest.raises(FormatError):
            read_planes(cursor((JOINED + ALONE)[:size]), SPANS)


@pytest.mark.parametrize(("size", "planes"), [(4095, b"\0" + bytes(512 + 1)), (4096, b"\0\0" + b"\0" + bytes(512))])
def test_a_small_matrix_has_fewer_elements_in_the_chunk_than_4096(size: int, planes: bytes) -> None:
    payload = cursor(planes)
    read_planes(payload, {0: Span(1, 0, size), 1: Span(1, 0, 8)})
    assert payload.remaining == 0
    assert JOINED_BELOW == 4096


def test_the_encoder_writes_the_bytes_by_hand() -> None:
    def coded(low: np.ndarray, low_bits: int) -> CodedMatrix:
        ones = Classes(np.ones(1, np.uint8), np.ones(low.size, np.uint8))
        return CodedMatrix(np.zeros(low.size, np.uint8), ones, low_bits, low.astype(np.uint32))

    spans = [
        (coded(np.concatenate([np.zeros(8), LARGE]), 1), 8, 4104),
        (coded(FIRST, 9), 0, 3),
        (coded(np.concatenate([np.zeros(5), SECOND]), 2), 5, 7),
    ]
    written = b"".join(packed_planes(spans))
    assert written.startswith(JOINED)
    planes = read_planes(cursor(written), SPANS)
    assert planes[0].low(8, 4104).tolist() == LARGE.tolist()
