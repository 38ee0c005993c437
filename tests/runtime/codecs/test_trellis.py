"""Dependent quantization: the grid of an element follows from the parities before it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.trellis import Trellis
from seed_runtime.limits import DELAY_MAX


def by_recurrence(integers: np.ndarray, delay: int) -> list[int]:
    """Compute the values as SPEC.md defines them, an element at a time."""
    grids, values = [0] * (3 * delay), list[int]()
    parities = [0] * (2 * delay) + [int(z) % 2 for z in integers]
    for place, z in enumerate(int(z) for z in integers):
        grid = parities[place] ^ grids[-delay] ^ grids[-3 * delay]
        grids.append(grid)
        values.append(2 * z - grid * ((z > 0) - (z < 0)))
    return values


@pytest.mark.parametrize("dtype", [np.int8, np.int32])
@pytest.mark.parametrize("delay", [1, 2, 3, 7, 64, 300, 999, 1000])
def test_values_are_those_of_the_recurrence_however_a_matrix_is_cut(
    delay: int, dtype: Any, rng: np.random.Generator
) -> None:
    integers = np.rint(rng.laplace(0, 2, 1000)).astype(dtype)
    expected = by_recurrence(integers, delay)
    assert Trellis(delay, 1000).values(integers).tolist() == expected
    for _ in range(4):
        trellis, parts = Trellis(delay, 1000), np.split(integers, sorted(rng.integers(0, 1001, 5)))
        assert [value for part in parts for value in trellis.values(part).tolist()] == expected


@pytest.mark.parametrize("delay", [50, WINDOW // 7 + 1, WINDOW, DELAY_MAX])
def test_a_matrix_longer_than_a_window_goes_on_from_window_to_window(delay: int, rng: np.random.Generator) -> None:
    integers = rng.integers(-3, 4, 7 * DELAY_MAX + 3 * WINDOW // 2 if delay == DELAY_MAX else 5 * WINDOW // 2)
    integers = integers.astype(np.int8)
    parities, grids = integers & 1, np.zeros(integers.size, np.int8)
    for start in range(0, integers.size, delay):  # a stride at a time
        stop = min(start + delay, integers.size)
        for taken, back in ((parities, 2), (grids, 1), (grids, 3)):
            if start >= back * delay:
                grids[start:stop] ^= taken[start - back * delay :][: stop - start]
    trellis = Trellis(delay, integers.size)
    values = [trellis.values(integers[start : start + WINDOW]) for start in range(0, integers.size, WINDOW)]
    assert np.array_equal(np.concatenate(values), 2 * integers.astype(np.int16) - grids * np.sign(integers))


def test_every_value_of_an_octet_has_room() -> None:
    # Grids 0, 0, 1: of -128 and 127 the doubles, less one towards zero in the end.
    assert Trellis(1, 3).values(np.array([127, -128, -128], np.int8)).tolist() == [254, -256, -255]


def test_values_beyond_32_bits_wrap_as_the_specification_says() -> None:
    integers = np.array([1, 1 << 30, -(1 << 31), (1 << 31) - 1], np.int32)
    # Grids 0, 0, 1, 1.
    assert Trellis(1, 4).values(integers).tolist() == [2, -(1 << 31), 1, -3]


def test_a_short_matrix_takes_no_memory_of_a_window_and_a_long_one_seven_bytes_for_each_of_its_delay() -> None:
    tracemalloc.start()
    try:
        Trellis(10, 10)
        assert tracemalloc.get_traced_memory()[1] < 1000
        trellis, part = Trellis(DELAY_MAX, 1 << 40), np.ones(WINDOW, np.int8)
        for _ in range(20):
            trellis.values(part)
        assert tracemalloc.get_traced_memory()[1] < 7 * DELAY_MAX + 7 * WINDOW
    finally:
        tracemalloc.stop()
