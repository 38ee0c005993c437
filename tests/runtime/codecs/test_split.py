from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.codecs.encode import split as encoder
from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.symbols import SymbolReader
from seed_runtime.errors import FormatError
from seed_runtime.format.dtypes import BY_NAME
from tests.support.streams import cuts, data, decode, floats, head, hole, shape, table

# Bits rotated left by one: 1.0 = 3f800000 -> 7f 000000, -2.0 = c0000000 -> 80 000001, 1.5 = 3fc00000 -> 7f 800000.
# Symbols [7f, 80, 7f, 7f] with 2,048 slots each, over two lanes, from the last step on:
#   lane 0: 0x10000 = 32 * 2048 -> 32 << 12 = 0x20000 = 64 * 2048 -> 64 << 12 = 0x40000
#   lane 1: 7f: 0x20000, 80: 64 << 12 | 2048 = 0x40800
FLOATS = [
    head(tables=table(0x7F, (2048, 2048), escape=None), shapes=shape(2, low_bits=24, step=None)),
    data(
        states=(0x40000, 0x40800),
        words=(),
        planes=b"\x00" + b"\x00\x01\x00\x00" + b"\x00" + bytes(4) + b"\x00" + b"\x00\x00\x80\x00",
    ),
]
BYTES = [
    head(tables=table(0x7F, (2048, 2048), escape=None), shapes=shape(2, step=None)),
    data(states=(0x40000, 0x40800), words=()),
]


def test_floats_written_by_hand_decode() -> None:
    assert floats("split", hole(2, 2), FLOATS) == [[1.0, -2.0], [1.5, 1.0]]


def test_bytes_written_by_hand_decode() -> None:
    assert floats("split", hole(2, 2, dtype="int8"), BYTES) == [[127, -128], [127, 127]]
    assert floats("split", hole(2, 2, dtype="uint8"), BYTES) == [[127, 128], [127, 127]]


def test_two_elements_of_four_bits_share_a_byte() -> None:
    assert decode("split", [hole(4, 2, dtype="int4")], BYTES) == b"\x7f\x80\x7f\x7f"
    assert decode("split", [hole(7, dtype="uint4")], BYTES) == b"\x7f\x80\x7f\x7f"


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    for chunks in cuts(FLOATS):
        with pytest.raises(FormatError):
            decode("split", [hole(2, 2)], chunks)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_low_bits_must_be_those_of_the_type(dtype: str) -> None:
    with pytest.raises(FormatError, match="low bits do not make"):
        decode("split", [hole(2, 2, dtype=dtype)], BYTES)
    if dtype != "float32":
        with pytest.raises(FormatError, match="low bits do not make"):
            decode("split", [hole(2, 2, dtype=dtype)], FLOATS)


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", "float8e5m2"])
def test_types_it_does_not_know_are_refused(dtype: str) -> None:
    with pytest.raises(FormatError, match=f"does not decode {dtype}"):
        decode("split", [hole(2, 2, dtype=dtype)], BYTES)


@pytest.mark.parametrize("flags", [4, 8])
def test_steps_of_rows_and_columns_have_no_meaning_here(flags: int) -> None:
    shapes = shape(2, flags=flags, step=None)
    steps = head(tables=table(0x7F, (2048, 2048), escape=None), shapes=shapes, arrays=b"\x00\x00")
    with pytest.raises(FormatError, match="flags"):
        decode("split", [hole(2, 2, dtype="int8")], [steps, BYTES[1]])


def test_the_symbol_0x80_is_no_escape_here() -> None:
    with pytest.raises(FormatError, match="left over"):
        decode("split", [hole(2, 2, dtype="int8")], [BYTES[0], BYTES[1] + bytes(4)])


@pytest.mark.parametrize("plane", [b"\x01\x01\x00", b"\x02\x00", b"\x01\xff\xff\xff\x7f"])
def test_a_plane_packed_wrongly_is_refused(plane: bytes) -> None:
    start = len(FLOATS[1]) - 15
    with pytest.raises(FormatError):
        decode("split", [hole(2, 2)], [FLOATS[0], FLOATS[1][:start] + plane + FLOATS[1][start + 5 :]])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8"])
def test_every_bit_pattern_round_trips(dtype: str, rng: np.random.Generator) -> None:
    # NaN payloads, infinities, negative zero, subnormals: all are only bits.
    kind = BY_NAME[dtype]
    bits = rng.integers(0, 1 << kind.bits, 70 * 130, np.uint64).astype(f"<u{kind.bits // 8}").reshape(70, 130)
    bits[:30] = 0
    bits[30:40] = 1 << (kind.bits - 1)
    coded = symbols.encode([encoder.matrix_of(bits.view(kind.storage), kind)])
    assert decode("split", [hole(70, 130, dtype=dtype)], coded.chunks) == bits.tobytes()


def test_tensors_of_one_stream_may_have_different_shapes(rng: np.random.Generator) -> None:
    tensors = [rng.normal(0, 10.0**-k, (5 * k + 1, 40 - k)).astype(np.float32) for k in range(5)]
    coded = symbols.encode([encoder.matrix_of(tensor, BY_NAME["float32"]) for tensor in tensors])
    holes = [hole(*tensor.shape) for tensor in tensors]
    assert decode("split", holes, coded.chunks) == b"".join(tensor.tobytes() for tensor in tensors)


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_states_of_lanes_take_what_they_may_of_planes_as_well(side: int, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((side, side)).astype(np.float32)
    chunks = symbols.encode([encoder.matrix_of(weights, BY_NAME["float32"])]).chunks
    reader = SymbolReader(map(memoryview, chunks), [weights.size], quantized=False, where="stream")
    states = 4 << reader._lanes_log2
    # A power of two: at least half of what is allowed. 2,048 lanes are enough where symbols alone ask for fewer.
    allowed = min(0.003 * sum(map(len, chunks)), 4 * 2048)
    assert 0.49 * allowed < states <= allowed
