from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.codecs.encode import grid as encoder
from seed_runtime.codecs.encode import symbols
from seed_runtime.errors import FormatError
from tests.support.streams import cuts, data, decode, floats, head, hole, shape, table

# Frequencies 2048, 1024 and, for the escape, 1024. [1, escape, 0, 1] over two lanes, from the last step on:
#   lane 0, symbol 0: 0x10000 = 32 * 2048 -> 32 << 12 = 0x20000
#           symbol 1: 0x20000 = 128 * 1024 -> 128 << 12 | 0 + 2048 = 0x80800
#   lane 1, symbol 1: 0x10000 = 64 * 1024 -> 64 << 12 | 0 + 2048 = 0x40800
#           escape:   0x40800 = 258 * 1024 -> 258 << 12 | 0 + 3072 = 0x102c00
# Low bits 5, 2, 7, 0: planes 1010, 0110, 1010 from the first element on, so bytes 5, 6, 5.
ESCAPED = [
    head(tables=table(0, (2048, 1024), escape=1024), shapes=shape(2, low_bits=3, step=0.25)),
    data(
        states=(0x80800, 0x102C00),
        words=(),
        planes=b"\x00\x05" + b"\x00\x06" + b"\x00\x05",
        escapes=(-200).to_bytes(4, "little", signed=True),
    ),
]


def test_escapes_and_low_bits_written_by_hand_decode() -> None:
    # 1 << 3 | 5, -200 << 3 | 2, 0 << 3 | 7, 1 << 3 | 0
    assert floats("grid", hole(2, 2), ESCAPED) == [[13 / 4, -1598 / 4], [7 / 4, 8 / 4]]


def test_negative_symbols_are_bytes_in_twos_complement() -> None:
    # Symbols -1, 0, 1 listed from byte 255 on; slots in the order of the bytes 0, 1, 255.
    # [0, 1, -1, 0]: lane 0: 0x10000 -> -1: 64 << 12 | 3072 = 0x40c00 = 129 * 2048 + 1024 -> 0: 129 << 12 | 1024
    #                lane 1: 0x10000 -> 0: 0x20000 -> 1: 128 << 12 | 2048
    chunks = [head(tables=table(255, (1024, 2048, 1024))), data(states=(0x81400, 0x80800), words=())]
    assert floats("grid", hole(2, 2), chunks) == [[0, 0.5], [-0.5, 0]]


def test_a_plane_may_be_packed() -> None:
    # Deflate: one final stored block of one byte, the length and its complement.
    chunk = ESCAPED[1].replace(b"\x00\x06", b"\x01\x06" + b"\x01\x01\x00\xfe\xff\x06")
    assert floats("grid", hole(2, 2), [ESCAPED[0], chunk]) == [[13 / 4, -1598 / 4], [7 / 4, 8 / 4]]
    chunk = ESCAPED[1].replace(b"\x00\x06", b"\x01\x07" + b"\x01\x02\x00\xfd\xff\x06\x06")
    with pytest.raises(FormatError, match="2 bytes unpacked"):
        decode("grid", [hole(2, 2)], [ESCAPED[0], chunk])


def test_a_stream_with_escapes_cut_at_any_byte_is_refused() -> None:
    for chunks in cuts(ESCAPED):
        with pytest.raises(FormatError):
            decode("grid", [hole(2, 2)], chunks)


@pytest.mark.parametrize(
    ("escapes", "message"), [(b"", "end early"), (b"\x00" * 8, "left over"), (b"\x00" * 5, "int32")]
)
def test_escapes_too_few_and_too_many_are_refused(escapes: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode("grid", [hole(2, 2)], [ESCAPED[0], ESCAPED[1][:-4] + escapes])


def test_rows_have_steps_in_eighths_of_an_octave() -> None:
    # Code 0 is the step itself; code 12 is (1 + 4 / 8) * 2**1 = 3 steps.
    chunks = [head(shapes=shape(2, flags=4), arrays=b"\x00\x0c"), data()]
    assert floats("grid", hole(2, 2), chunks) == [[0.5, 0], [3.0, 0]]


def test_steps_of_dead_rows_are_not_used() -> None:
    chunks = [head(shapes=shape(2, flags=5), arrays=b"\x00\xff\x0c" + b"\x01\x00\x01"), data()]
    assert floats("grid", hole(3, 2), chunks) == [[0.5, 0], [0, 0], [3.0, 0]]


def test_columns_have_steps_in_eighths_of_an_octave() -> None:
    # The symbols are 1, 0 and 2, 0: code 12 makes the first column's steps three times as large, 4 the second's 1.5.
    chunks = [head(shapes=shape(2, flags=8), arrays=b"\x0c\x04"), data()]
    assert floats("grid", hole(2, 2), chunks) == [[1.5, 0], [3.0, 0]]


def test_steps_of_columns_stand_behind_those_of_rows_and_multiply_them() -> None:
    chunks = [head(shapes=shape(2, flags=12), arrays=b"\x08\x0c" + b"\x0c\xff"), data()]
    assert floats("grid", hole(2, 2), chunks) == [[3.0, 0], [9.0, 0]]


def test_an_integer_is_multiplied_by_its_columns_factor_first_and_rounded_twice() -> None:
    # 13 << 20 | 11 needs 24 bits; times 15 / 8 it is rounded, and times the row's step, 9 / 8 of 0.1, again.
    shapes = shape(1, low_bits=20, flags=12, step=0.1)
    fields = head(lanes_log2=0, tables=table(13, (4095, 1)), shapes=shapes, arrays=b"\x01" + b"\x07")
    state = 0x10000 // 4095 << 12 | 0x10000 % 4095
    planes = b"\x00\x0b" + b"\x00\x00" + b"\x00\x00" * 4
    decoded = floats("grid", hole(1, 1), [fields, data(states=(state,), words=(), planes=planes)])
    integer, factor, row = np.float32(13 << 20 | 11), np.float32(15 / 8), np.float32(0.1) * np.float32(9 / 8)
    assert decoded == [[float(integer * factor * row)]]
    assert float(integer * (factor * row)) != decoded[0][0] != float(integer * row * factor)


def test_steps_of_dead_columns_are_not_used_and_infinite_ones_make_no_nan() -> None:
    arrays = b"\xff\xff\xff" + b"\x00\x01\x01"
    chunks = [head(shapes=shape(3, flags=10, step=1e30), arrays=arrays), data()]
    assert floats("grid", hole(2, 3), chunks) == [[0, np.inf, 0], [0, np.inf, 0]]


def test_on_a_trellis_parities_choose_even_or_odd_multiples() -> None:
    # z = 1, 0, 2, 0. With a delay of 1 the grids are 0, 0, 1 (of the first parity), 1: 2 * 1, 0, 2 * 2 - 1, 0 halves.
    chunks = [head(shapes=shape(2, flags=16, delay=1)), data()]
    assert floats("grid", hole(2, 2), chunks) == [[1.0, 0], [1.5, 0]]
    # With a delay of 2 the first parity reaches the fifth element.
    chunks = [head(shapes=shape(2, flags=16, delay=2)), data()]
    assert floats("grid", hole(2, 2), chunks) == [[1.0, 0], [2.0, 0]]


def test_dead_elements_take_places_on_a_trellis() -> None:
    # Between the rows 1, 0 and 2, 0 the dead one is two places: with a delay of 2 the 2 is the fifth element.
    arrays = b"\x0c\xff\x00" + b"\x01\x00\x01"
    chunks = [head(shapes=shape(2, flags=21, delay=2), arrays=arrays), data()]
    assert floats("grid", hole(3, 2), chunks) == [[3.0, 0], [0, 0], [1.5, 0]]


@pytest.mark.parametrize("classes", [b"\x00\x00\x01\x01", b"\x01\x01\x00\x00", bytes(4)])
def test_a_dead_matrix_may_have_row_steps(classes: bytes) -> None:
    chunks = [head(shapes=shape(2, flags=7), arrays=b"\x00\x0c" + classes)]
    assert floats("grid", hole(2, 2), chunks) == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("float16", "<u2"), ("bfloat16", "<u2"), ("float64", "<u8")],
)
def test_weights_are_rounded_to_the_type_of_the_model(dtype: str, bits: str) -> None:
    # Symbol 1 times a step just above 1 + 2**-8, half way between two bfloat16: it goes up.
    step = float(np.nextafter(np.float32(1 + 2**-8), np.float32(2)))
    one = {"float16": 0x3C04, "bfloat16": 0x3F81, "float64": int(np.float64(step).view(np.uint64))}[dtype]
    decoded = decode("grid", [hole(2, 2, dtype=dtype)], [head(shapes=shape(2, step=step)), data()])
    assert np.frombuffer(decoded, bits)[0] == one


def test_ties_in_bfloat16_go_to_even() -> None:
    decoded = decode("grid", [hole(2, 2, dtype="bfloat16")], [head(shapes=shape(2, step=1 + 2**-8)), data()])
    assert np.frombuffer(decoded, "<u2")[0] == 0x3F80


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "uint4"])
def test_types_that_hold_no_fractions_are_refused(dtype: str) -> None:
    with pytest.raises(FormatError, match=f"does not decode {dtype}"):
        decode("grid", [hole(2, 2, dtype=dtype)], [head(), data()])


def test_weights_beyond_the_reach_of_float32_do_not_warn() -> None:
    chunks = [ESCAPED[0].replace(np.float32(0.25).tobytes(), np.float32(3e38).tobytes()), ESCAPED[1]]
    assert np.isinf(floats("grid", hole(2, 2), chunks)[0][1])


def test_far_and_fine_integers_round_trip_in_one_stream(rng: np.random.Generator) -> None:
    shapes = [(7, 300), (300, 7), (1, 1), (64, 64), (3, 5)]
    integers = [rng.normal(0, 10.0**k, shape).astype(np.int32) for k, shape in enumerate(shapes)]
    integers[3][rng.random(64) < 0.5] = 0
    integers[4][...] = 0
    integers[0][2, 3], integers[0][6, 299] = 1 << 22, -(1 << 22)
    steps = [0.1, 1.0, 3e-5, 1e-30, 0.5]
    coded = symbols.encode(
        [encoder.matrix_of(encoder.QuantizedMatrix(q, step)) for q, step in zip(integers, steps, strict=True)]
    )
    decoded = np.frombuffer(decode("grid", [hole(*shape) for shape in shapes], coded.chunks), "<f4")
    expected = [(q * np.float32(step)).astype(np.float32).ravel() for q, step in zip(integers, steps, strict=True)]
    assert np.array_equal(decoded, np.concatenate(expected))
