from __future__ import annotations

import numpy as np
import pytest

from seed_runtime import generator

# Vigna's splitmix64.c, as printed by its users: seed 0 in hexadecimal, seed 1234567 in Rosetta Code's task.
SEED_0 = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]
SEED_1234567 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


@pytest.mark.parametrize(("seed", "outputs"), [(0, SEED_0), (1234567, SEED_1234567)])
def test_raw_outputs_are_those_of_splitmix64(seed: int, outputs: list[int]) -> None:
    assert generator.raw(seed, 0, 5).tolist() == outputs


def test_any_part_of_a_sequence_can_be_drawn_on_its_own() -> None:
    whole = generator.raw(7, 0, 1000)
    assert np.array_equal(generator.raw(7, 900, 100), whole[900:])
    assert generator.raw(7, 5, 0).size == 0


def test_seeds_and_counters_wrap_at_64_bits() -> None:
    assert generator.raw((1 << 64) - 1, (1 << 63), 2).shape == (2,)
    # One step of the counter is one addition of GAMMA to the seed.
    assert generator.raw(generator.GAMMA, 0, 4).tolist() == generator.raw(0, 1, 4).tolist()


def test_normal_values_are_the_sum_of_four_lanes() -> None:
    # 0xe220 + 0xa839 + 0x7b1d + 0xcdaf - 131070 = 54055, and 54055 / 37837.2 = 1.42862.
    value = generator.normal(0, 0, 1, 0, 1)
    assert value.dtype == np.float32
    assert value[0] == np.float32(54055) * generator.NORMAL_SCALE
    assert value[0] == pytest.approx(54055 / ((2**32 - 1) / 3) ** 0.5, rel=1e-6)


def test_normal_values_round_after_each_operation() -> None:
    z = np.float32(54055) * generator.NORMAL_SCALE
    expected = np.float32(np.float32(z * np.float32(0.1)) + np.float32(3.3))
    assert generator.normal(0, 0, 1, 3.3, 0.1)[0] == expected


def test_normal_values_have_the_moments_asked_for() -> None:
    values = generator.normal(1, 0, 100_000, -2, 3).astype(np.float64)
    assert values.mean() == pytest.approx(-2, abs=0.03)
    assert values.std() == pytest.approx(3, rel=0.01)
    assert np.abs(values + 2).max() < 3 * 3.47


def test_uniform_values_take_the_upper_24_bits() -> None:
    assert generator.uniform(0, 0, 1, 0, 1)[0] == 0xE220A8 / 2**24
    assert generator.uniform(0, 0, 1, -1, 1)[0] == np.float32(0xE220A8 / 2**23 - 1)


def test_uniform_values_never_reach_their_upper_limit() -> None:
    # Two neighbouring floats: every rounding up would give the upper one.
    low, high = 1.0, float(np.nextafter(np.float32(1), np.float32(2)))
    assert set(generator.uniform(3, 0, 100, low, high).tolist()) == {low}


def test_integers_are_the_upper_half_scaled_to_their_range() -> None:
    # 0xe220a839 * 10 >> 32 = 8, 0x6e789e6a * 10 >> 32 = 4, 0x06c45d18 * 10 >> 32 = 0.
    assert generator.integers(0, 0, 3, 0, 10).tolist() == [8, 4, 0]
    assert generator.integers(0, 0, 3, -5, 5).tolist() == [3, -1, -5]
    assert generator.integers(0, 0, 1, 0, 1 << 32).tolist() == [0xE220A839]
    assert set(generator.integers(9, 0, 50, 1, 2).tolist()) == {1}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (generator.ZEROS, np.float32),
        (generator.UNIFORM, np.float32),
        (generator.NORMAL, np.float32),
        (generator.INTEGERS, np.int64),
    ],
)
def test_every_kind_fills_as_many_values_as_asked_for(kind: int, dtype: type) -> None:
    values = generator.fill(kind, 1, 9, 0, 5)
    assert (values.shape, values.dtype) == ((9,), dtype)
    assert kind in generator.KINDS


@pytest.mark.parametrize(
    ("kind", "a", "b"),
    [
        (4, 0, 1),
        (generator.ZEROS, float("nan"), 0),
        (generator.UNIFORM, 1, 1),
        (generator.UNIFORM, 2, 1),
        (generator.UNIFORM, -3e38, 3e38),
        (generator.UNIFORM, 0, float("inf")),
        (generator.NORMAL, float("nan"), 1),
        (generator.INTEGERS, 0, 0),
        (generator.INTEGERS, 0.2, 0.9),
        (generator.INTEGERS, 0, 2.0**33),
        (generator.INTEGERS, 2.0**63, 2.0**63 + 4096),
    ],
)
def test_recipes_that_make_nothing_are_refused(kind: int, a: float, b: float) -> None:
    assert not generator.valid(kind, a, b)
    with pytest.raises(ValueError, match="no kind"):
        generator.fill(kind, 0, 3, a, b)
