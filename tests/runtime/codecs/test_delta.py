"""Codec delta: bytes by hand, every type both ways, arithmetic that is the same everywhere, damage and memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from seed_runtime.codecs import BY_NAME as CODECS
from seed_runtime.codecs.arrays import Values
from seed_runtime.codecs.buckets import LIMIT, Buckets
from seed_runtime.codecs.delta import (
    ANEW,
    BITS,
    BLOCK,
    BY_OCTAVE,
    DIFFERENCE,
    UNCHANGED,
    add,
    add_to_bits,
    difference_of_bits,
    octaves_of,
)
from seed_runtime.codecs.encode import buckets
from seed_runtime.codecs.encode import delta as encoder
from seed_runtime.codecs.encode.delta import NO_CHANGE, Change, exact, quantized, rounded_step
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.errors import FormatError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole
from seed_runtime.format.primitives import Cursor
from tests.support.streams import cuts, data, head, hole, packed, shape, table

FLOATS = ("float32", "float16", "bfloat16", "float64")
NARROW = [dtype.name for dtype in BY_NAME.values() if dtype.bits <= 32]
SPECIALS = np.array([0.0, -0.0, 1e-40, -1e-40, np.inf, -np.inf, np.nan, 1.0, -2.5], np.float32)


class Arrays:
    """A base in memory, and the longest read of it."""

    def __init__(self, *tensors: Values) -> None:
        self.tensors, self.longest = tensors, 0

    def read(self, hole: int, start: int, stop: int) -> Values:
        self.longest = max(self.longest, stop - start)
        tensor = self.tensors[hole]
        return tensor[start:stop].copy()


class Packed(Arrays):
    """A base of 4-bit elements, two to a byte."""

    def read(self, hole: int, start: int, stop: int) -> Values:
        return self.tensors[hole][start // 2 : (stop + 1) // 2].copy()


def decode(holes: Sequence[Hole], chunks: Sequence[bytes], base: Arrays | None) -> bytes:
    views = iter([memoryview(chunk) for chunk in chunks])
    return b"".join(values.tobytes() for values in CODECS["delta"].decode(holes, views, "stream 0", base))


def changed(base: Values, change: Change, one: Hole, kind: type[Arrays] = Arrays) -> Any:
    """Return what a stream with one change makes of a tensor."""
    decoded = decode([one], encoder.encode([change]).chunks, kind(base))
    return np.frombuffer(decoded, one.dtype.storage)


def test_a_stream_by_hand_adds_steps_to_the_base() -> None:
    # Symbols 1, 0, 2, 0 with the step 0.5, see tests/support/streams.py.
    holes = [hole(3), hole(2, 2), hole(2)]
    base = Arrays(*(np.arange(count, dtype=np.float32) + np.float32(0.25) for count in (3, 4, 2)))
    chunks = [head(prefix=bytes([UNCHANGED, DIFFERENCE, UNCHANGED])), data()]
    expected = [0.25, 1.25, 2.25, 0.75, 1.25, 3.25, 3.25, 0.25, 1.25]
    assert decode(holes, chunks, base) == struct.pack("<9f", *expected)


def test_a_stream_by_hand_without_changes_is_its_modes() -> None:
    base = Arrays(np.arange(3, dtype=np.float32), np.arange(4, dtype=np.int64))
    holes = [hole(3), hole(4, dtype="int64")]
    assert decode(holes, [packed(bytes(2))], base) == b"".join(each.tobytes() for each in base.tensors)
    assert encoder.encode([NO_CHANGE, NO_CHANGE]).chunks == [packed(bytes(2))]
    for chunks, text in (
        ([packed(bytes(3))], "1 bytes too many"),
        ([packed(bytes(1))], "modes ends 1 bytes past"),
        ([packed(bytes(2)), b""], "more chunks than"),
        ([], "head is missing"),
    ):
        with pytest.raises(FormatError, match=text):
            decode(holes, chunks, base)


def test_a_stream_by_hand_adds_integers_to_bits() -> None:
    one = Arrays(np.array([0xFF, 0, 7, 9], np.uint8))
    chunks = [head(prefix=bytes([BITS]), shapes=shape(2, step=1.0)), data()]
    assert decode([hole(2, 2, dtype="uint8")], chunks, one) == bytes([0, 0, 9, 9])
    # The float above 1.0, and the one above the negative number of least magnitude, which is -0.0.
    one = Arrays(np.array([0x3F80, 0xFFFF, 0x8001, 5], np.uint16))
    assert decode([hole(2, 2, dtype="bfloat16")], chunks, one) == struct.pack("<4H", 0x3F81, 0xFFFF, 0, 5)


def test_a_stream_by_hand_has_integers_in_buckets() -> None:
    # Symbol 18 is the bucket of 20 and 21: 18 div 8 - 1 bits, (8 + 18 mod 8) * 2 and its bit. Its mirror is 238.
    # Lane 0 has the symbols 18 and 0, lane 1 has 238 and 0; frequencies 4094 of 0, 1 of 18, 1 of 238.
    tables = table(0, [4094] + [0] * 17 + [1] + [0] * 219 + [1])
    head_chunk = head(prefix=bytes([BY_OCTAVE, 0, 0]), tables=tables, shapes=shape(2, step=1.0))
    # Lane 0: 0 from 0x10000 is 0x10020, as 0x10000 = 16 * 4094 + 32; 18 of it is 0x10020 << 12 | 4094. Lane 1: | 4095.
    chunk = data(states=(0x10020FFE, 0x10020FFF), words=(), planes=bytes([1, 0b01]))
    # 1.0 and 21 floats above it; -1.0 and 20 floats towards zero, as its integer is -20; the others stay.
    one = Arrays(np.array([0x3F80, 0xBF80, 0x3F80, 0xBF80], np.uint16))
    found = decode([hole(2, 2, dtype="bfloat16")], [head_chunk, chunk], one)
    assert found == struct.pack("<4H", 0x3F80 + 21, 0xBF80 - 20, 0x3F80, 0xBF80)


@pytest.mark.parametrize("reach", [7, 16, 300, (1 << 18) - 1, 1 << 18, (1 << 31) - 1])
def test_integers_of_any_size_come_back_from_buckets(reach: int, rng: np.random.Generator) -> None:
    integers = rng.integers(-reach, reach + 1, 5000).astype(np.int32)
    integers[:4] = reach, -reach, 0, 8
    symbols, below = buckets.split(integers)
    packed_bits = Cursor(buckets.pack(symbols, below), "bits")
    reader = Buckets(packed_bits)
    # Cut where a byte of bits isn't.
    found = np.concatenate([reader.integers(symbols[:1703]), reader.integers(symbols[1703:])])
    reader.end()
    near = np.abs(integers.astype(np.int64)) < LIMIT
    assert (found[near] == integers[near]).all()
    assert (symbols[~near] == ESCAPE).all()
    assert (found == buckets.joined(symbols, below)).all()


def test_a_stream_by_hand_codes_anew() -> None:
    one = Arrays(np.full(4, np.nan, np.float32))
    assert decode([hole(2, 2)], [head(prefix=bytes([ANEW])), data()], one) == struct.pack("<4f", 0.5, 0, 1, 0)
    assert not one.longest


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 500), (25, 20)])
def test_quantized_differences_bring_every_float_within_half_a_step(
    dtype: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    one = Hole(BY_NAME[dtype], shape, 0)
    old, difference = rng.normal(size=shape).astype(np.float32), rng.laplace(0, 0.02, shape).astype(np.float32)
    stored = _stored(old, dtype)
    found = _floats(changed(stored.reshape(-1), quantized(difference, 0.01), one), dtype).reshape(shape)
    precision = {"float16": 2e-3, "bfloat16": 1.6e-2}.get(dtype, 1e-6)
    assert np.abs(found - (_floats(stored, dtype) + difference)).max() <= rounded_step(0.01) / 2 + 2 * precision


@pytest.mark.parametrize("dtype", NARROW)
def test_integers_added_to_bits_give_every_value_of_a_type(dtype: str, rng: np.random.Generator) -> None:
    kind, count = BY_NAME[dtype], 301
    width = kind.storage.itemsize
    old, new = (np.frombuffer(rng.bytes(count * width), f"u{width}") for _ in range(2))
    new = np.where(rng.random(count) < 0.7, old, new).astype(old.dtype)
    one = Hole(kind, (2 * count if kind.bits < 8 else count,), 0)
    integers = difference_of_bits(new, old, kind).reshape(7, 43)
    change = exact(integers, old.reshape(integers.shape), kind)
    found = changed(old.view(kind.storage), change, one, Packed if kind.bits < 8 else Arrays)
    assert found.view(old.dtype).tolist() == new.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_octaves_make_equal_changes_of_weights_of_many_sizes_smaller(dtype: str, rng: np.random.Generator) -> None:
    kind, one = BY_NAME[dtype], Hole(BY_NAME[dtype], (300, 1000), 0)
    old = rng.normal(0, 0.05, one.dims).astype(np.float32)
    new = _stored(old + rng.normal(0, 4e-4, old.shape).astype(np.float32), dtype).reshape(-1)
    base = _stored(old, dtype).reshape(-1)
    bits = np.dtype(f"u{base.itemsize}")
    integers = difference_of_bits(new.view(bits), base.view(bits), kind).reshape(one.dims)
    change = exact(integers, base.view(bits).reshape(one.dims), kind)
    assert change.mode == BY_OCTAVE
    assert changed(base, change, one).tobytes() == new.tobytes()
    plain = exact(integers, np.zeros(one.dims, bits), BY_NAME["uint32"])
    sizes = [sum(map(len, encoder.encode([each]).chunks)) for each in (change, plain)]
    assert sizes[0] < 0.98 * sizes[1]


def test_octaves_that_tell_nothing_are_left_out(rng: np.random.Generator) -> None:
    integers = rng.integers(-2, 3, (8, 9)).astype(np.int32)
    assert exact(integers, np.full((8, 9), 0x3C00, np.uint16), BY_NAME["bfloat16"]).mode == BITS
    assert octaves_of(np.zeros(3, np.uint64), BY_NAME["float64"]) is None
    assert octaves_of(np.zeros(3, np.uint32), BY_NAME["int32"]) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_neighbouring_floats_differ_by_one_across_exponents_and_signs(dtype: str) -> None:
    kind = BY_NAME[dtype]
    bits = np.dtype(f"u{kind.storage.itemsize}")
    below = np.array([-1e-3, -0.0, 0.0, 0.5, 1.99, 2.0, 250.0], np.float32)
    stored = _stored(below, dtype).view(bits)
    above = add_to_bits(stored, np.ones(7, np.int32), kind)
    assert difference_of_bits(above, stored, kind).tolist() == [1] * 7
    floats = _floats(above.view(kind.storage), dtype)
    assert (floats >= _floats(stored.view(kind.storage), dtype)).all()
    assert (np.diff(floats) > 0).sum() == 6


def test_what_is_not_changed_or_not_finite_keeps_its_bits() -> None:
    difference = np.array([0, 0, 0, 1, 5, 5, 5, 0, 2.5], np.float32)
    found = add(SPECIALS, difference, BY_NAME["float32"])
    kept = [0, 1, 2, 4, 5, 6, 7]
    assert found.view(np.uint32)[kept].tolist() == SPECIALS.view(np.uint32)[kept].tolist()
    # A subnormal base changes no sum, whether a machine flushes it to zero or not.
    assert (found[3], found[8]) == (1, 0)
    assert add(np.float32([1e-40]), np.float32([2.0**-100]), BY_NAME["float32"]) == 2.0**-100
    large = add(np.float32([3e38]), np.float32([3e38]), BY_NAME["float32"])
    assert np.isposinf(large).all()


def test_a_sum_of_float64_keeps_its_precision() -> None:
    base = np.array([1 / 3], np.float64)
    assert add(base, np.float32([2.0**-40]), BY_NAME["float64"])[0] == base[0] + 2.0**-40


def test_one_stream_may_have_all_modes_and_a_trellis_in_any_order(rng: np.random.Generator) -> None:
    holes = [hole(6, 5), hole(40), hole(6, 5), hole(9), hole(30), hole(8)]
    tensors = [rng.normal(size=each.count).astype(np.float32) for each in holes]
    new = tensors[1].copy()
    new[::3] = 7
    bits = difference_of_bits(new.view(np.uint32), tensors[1].view(np.uint32), holes[1].dtype).reshape(1, 40)
    first = quantized(rng.normal(size=(6, 5)).astype(np.float32), 0.1)
    assert first.matrix is not None
    changes = [
        NO_CHANGE,
        exact(bits, tensors[1].view(np.uint32)[None], holes[1].dtype),
        first,
        NO_CHANGE,
        Change(ANEW, first.matrix),
        NO_CHANGE,
    ]
    found = decode(holes, encoder.encode(changes).chunks, Arrays(*tensors))
    parts = np.split(np.frombuffer(found, np.float32), np.cumsum([each.count for each in holes])[:-1])
    for index in (0, 3, 5):
        assert parts[index].tobytes() == tensors[index].tobytes()
    assert parts[1].tobytes() == new.tobytes()
    assert (tensors[2] + parts[4]).astype(np.float32).tobytes() == parts[2].tobytes()


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0**-100, 1e-38, 1e38, 7e-5])
def test_steps_have_three_bits_of_mantissa(step: float) -> None:
    found = rounded_step(step)
    assert found == np.float32(found)
    assert found.hex()[3:].lstrip(".").partition("p")[0].rstrip("0") in ("", *"2468ace")
    if 2.0**-100 <= step <= 2.0**100:
        assert abs(found / step - 1) <= 1 / 16


def test_differences_that_round_to_nothing_are_no_change() -> None:
    assert quantized(np.full((2, 2), 0.4, np.float32), 1.0) is NO_CHANGE
    assert exact(np.zeros((3, 3), np.int32), np.zeros((3, 3), np.uint32), BY_NAME["float32"]) is NO_CHANGE


def test_a_stream_cut_at_any_byte_is_refused(rng: np.random.Generator) -> None:
    holes, base = [hole(6, 5), hole(4)], Arrays(np.zeros(30, np.float32), np.zeros(4, np.float32))
    change = quantized(rng.normal(size=(6, 5)).astype(np.float32), 0.1)
    for chunks in cuts(encoder.encode([change, NO_CHANGE]).chunks):
        with pytest.raises(FormatError):
            decode(holes, chunks, base)


def test_a_stream_needs_a_base_and_types_that_its_modes_take() -> None:
    with pytest.raises(FormatError, match="the seed names no base"):
        decode([hole(4)], [packed(b"\0")], None)
    base = Arrays(np.zeros(4, np.int64))
    for mode, dtype in (
        (BY_OCTAVE, "int32"),
        (BY_OCTAVE, "float64"),
        (DIFFERENCE, "int32"),
        (BITS, "int64"),
        (BITS, "float64"),
        (ANEW, "bool"),
        (9, "float32"),
    ):
        with pytest.raises(FormatError, match="mode"):
            decode([hole(4, dtype=dtype)], [head(prefix=bytes([mode])), data()], base)


@pytest.mark.parametrize("mode", [DIFFERENCE, BITS, BY_OCTAVE])
def test_memory_does_not_grow_with_the_tensor(mode: int, rng: np.random.Generator) -> None:
    peaks = []
    for rows in (1024, 2048):
        integers = rng.integers(-3, 4, (rows, 1 << 10))
        integers = integers.astype(np.int32)
        old = np.zeros(integers.shape, np.float32)
        if mode == BY_OCTAVE:
            old[:] = np.exp2(rng.integers(-9, 1, integers.shape))
            integers *= (300 / old).astype(np.int32)
        change = quantized(integers.astype(np.float32), 1.0)
        if mode != DIFFERENCE:
            change = exact(integers, old.view(np.uint32), BY_NAME["float32" if mode == BY_OCTAVE else "uint32"])
        assert change.mode == mode
        base, chunks = Arrays(old.reshape(-1)), encoder.encode([change]).chunks
        tracemalloc.start()
        views = iter([memoryview(chunk) for chunk in chunks])
        for _ in CODECS["delta"].decode([hole(rows, 1 << 10)], views, "stream 0", base):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert base.longest <= BLOCK
    assert peaks[1] < peaks[0] + (1 << 19)


def _stored(values: Values, dtype: str) -> Any:
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(BY_NAME[dtype].storage)


def _floats(stored: Values, dtype: str) -> Any:
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)
