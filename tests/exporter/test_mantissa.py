"""Float types of any width as float32, folding for coding, and rounding of mantissas."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from seed_exporter.codecs.exact import MANTISSA_BITS, with_mantissa
from seed_exporter.graph.matrix import as_float32, coded_view, fits_a_stream
from seed_exporter.graph.model import Use, Weight
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.limits import SIDE_MAX


def weight(shape: tuple[int, ...], dtype: str = "float32", op: str = "MatMul") -> Weight:
    """Of so many elements, without their memory."""
    kind = BY_NAME[dtype]
    flat = np.broadcast_to(np.zeros((), kind.storage), (kind.size(math.prod(shape)),) if kind.bits < 8 else shape)
    return Weight("w", kind, shape, flat, [Use(op, 1)])


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((96, 64), (96, 64)),
        ((3_000_000,), (32, 93_750)),
        ((250_002, 384), (125_001, 768)),
        ((131_079, 64), (43_693, 192)),  # 131,079 = 3 * 43,693: an odd vocabulary is folded as well
        ((1, 1, 7), (1, 7)),
    ],
)
def test_long_sides_are_folded_until_a_stream_holds_them(shape: tuple[int, ...], view: tuple[int, int]) -> None:
    assert coded_view(weight(shape)) == view
    assert fits_a_stream(weight(shape))


def test_a_prime_vocabulary_fits_as_it_is_and_a_prime_of_millions_does_not() -> None:
    assert coded_view(weight((256_019, 8))) == (256_019, 8)
    assert fits_a_stream(weight((256_019, 8)))
    assert not fits_a_stream(weight((3_000_017,)))
    assert sum(coded_view(weight((256_019, 8)))) <= SIDE_MAX


@pytest.mark.parametrize("rows", [2, 3, 9999, 131_071, 200_001, 1 << 20])
@pytest.mark.parametrize("cols", [1, 2, 65_537, 150_001])
def test_folding_keeps_the_elements_and_ends(rows: int, cols: int) -> None:
    a, b = coded_view(weight((rows, cols)))
    assert a * b == rows * cols


def test_four_bit_elements_are_viewed_as_their_bytes() -> None:
    assert coded_view(weight((10, 64), "int4")) == (10, 32)
    assert coded_view(weight((3, 5), "uint4")) == (1, 8)  # 15 elements end within a byte


def test_every_float_type_becomes_the_same_float32() -> None:
    values = np.array([[0.0, -1.5, 3.0, 1e-3]], np.float32)
    for name in ("float32", "float16", "float64"):
        data = values.astype(BY_NAME[name].storage)
        assert np.array_equal(as_float32(Weight("w", BY_NAME[name], (1, 4), data)), data.astype(np.float32))
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    widened = as_float32(Weight("w", BY_NAME["bfloat16"], (1, 4), bits))
    assert np.array_equal(widened.view(np.uint32) >> 16, bits)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kept", [2, 7, 9])
def test_a_mantissa_is_rounded_to_the_nearest(dtype: type, kept: int, rng: np.random.Generator) -> None:
    values = (rng.standard_normal(500) * np.exp(rng.normal(0, 2, 500))).astype(dtype)
    rounded = with_mantissa(values, MANTISSA_BITS[np.dtype(dtype).name], kept)
    for before, after in zip(values, rounded, strict=True):
        # Neighbours of `kept` bits lie 2**(exponent - kept) apart; exact arithmetic, no float's own rounding.
        gap = Fraction(2) ** (math.frexp(float(before))[1] - 1 - kept)
        assert abs(Fraction(float(after)) - Fraction(float(before))) <= gap / 2
        assert Fraction(float(after)) % gap == 0


def test_bfloat16_is_rounded_in_its_bits() -> None:
    bits = np.array([0x3F81, 0x3F80, 0xBF87, 0x0000, 0x8000], np.uint16)  # 1 + 1/128, 1, -(1 + 7/128), 0, -0
    assert [hex(bit) for bit in with_mantissa(bits, 7, 4)] == ["0x3f80", "0x3f80", "0xbf88", "0x0", "0x8000"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_infinities_nan_and_the_largest_number_survive_rounding(dtype: type) -> None:
    values = np.array([np.inf, -np.inf, np.nan, -np.nan, np.finfo(dtype).max, np.finfo(dtype).min, 0, -0.0], dtype)
    rounded = with_mantissa(values, MANTISSA_BITS[np.dtype(dtype).name], 3)
    assert rounded.tobytes() == values.tobytes()


def test_keeping_all_bits_changes_nothing(rng: np.random.Generator) -> None:
    values = rng.standard_normal(10).astype(np.float32)
    assert with_mantissa(values, 23, 23) is values
    assert with_mantissa(values, 23, 30) is values


def test_denormals_round_within_their_fixed_steps() -> None:
    tiny = np.float32(np.finfo(np.float32).smallest_subnormal)
    values = np.array([tiny, 3 * tiny, (1 << 22) * tiny], np.float32)
    rounded = with_mantissa(values, 23, 10)
    assert np.array_equal(rounded, np.array([0, 0, (1 << 22) * tiny], np.float32))
