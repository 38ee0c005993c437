from __future__ import annotations

import pytest

from seed_runtime.errors import FormatError
from tests.support.streams import cuts, data, decode, head, hole, shape, table

# 16 symbols from -8 on have 256 of the 4,096 slots each, so that symbol s takes slots (s + 8 if s < 0 else s) * 256 and
# up: 0 to 7 come first, -8 to -1 after them. One lane, [1, -2], from the last step on:
#   -2: 0x10000 -> (0x10000 // 256) << 12 | 0 + 14 * 256 = 0x100000 | 0xe00 = 0x100e00
#    1: 0x100e00 // 256 = 0x100e -> 0x100e << 12 | 0 + 256 = 0x100e000 + 0x100
HEAD = head(prefix=b"\x04", lanes_log2=0, tables=table(248, [256] * 16), shapes=shape(2, step=1.0))
CHUNKS = [HEAD, data(states=(0x100E100,), words=())]


def test_two_integers_of_four_bits_share_a_byte_the_first_one_in_its_low_half() -> None:
    # 1 + 8 = 9 and -2 + 8 = 6.
    assert decode("integers", [hole(1, dtype="uint8")], CHUNKS) == b"\x69"


def test_int8_has_integers_in_twos_complement() -> None:
    first = head(prefix=b"\x08", lanes_log2=0, tables=table(248, [256] * 16), shapes=shape(2, step=1.0))
    assert decode("integers", [hole(2, dtype="int8")], [first, CHUNKS[1]]) == b"\x01\xfe"
    assert decode("integers", [hole(2, dtype="uint8")], [first, CHUNKS[1]]) == b"\x81\x7e"


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    for chunks in cuts(CHUNKS):
        with pytest.raises(FormatError):
            decode("integers", [hole(1, dtype="uint8")], chunks)


@pytest.mark.parametrize("dtype", ["float32", "int4", "uint4", "int16"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(FormatError, match=f"does not decode {dtype}"):
        decode("integers", [hole(1, dtype=dtype)], CHUNKS)
