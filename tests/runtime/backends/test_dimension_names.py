"""Names of dimensions: unknown ones, and sums of others."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.backends.dimension_names import expression, is_unknown
from seed_runtime.backends.dimensions import broken_sums, free_axes

SIZES = {"past": 5, "a": 7, "b": 3, "batch-size": 2}


@pytest.mark.parametrize(
    "name", ["?", "", "None", "none", "unk__12", "unk", "unknown", "Unknown_3", "dynamic", "-1", "*", "N/A", "..."]
)
def test_names_that_say_nothing_are_known(name: str) -> None:
    assert is_unknown(name)


@pytest.mark.parametrize(
    "name", ["N", "batch", "sequence_length", "dynamic_axes_1", "DynamicDimension.0", "unk_length"]
)
def test_names_that_say_something_are_kept(name: str) -> None:
    assert not is_unknown(name)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("past + 1", 6),
        ("past+1", 6),
        ("a + b", 10),
        ("a - 1", 6),
        ("a-1", 6),
        ("2*b", 6),
        ("b * 2", 6),
        ("a*b - 2*past + 1", 12),
        ("batch-size * a", 14),
    ],
)
def test_sums_of_products_are_read(name: str, size: int) -> None:
    found = expression(name)
    assert found is not None
    assert found.value(SIZES) == size


@pytest.mark.parametrize(
    "name", ["past", "16", "batch-size", "seq len", "past +", "+ 1", "-a", "a // 2", "(a + 1)", "C++", "a" * 4096, ""]
)
def test_other_names_are_plain(name: str) -> None:
    assert expression(name) is None


@pytest.mark.parametrize("name", ["a+" * 2000 + "a", "9" * 4000 + "*a", "a*" * 2000 + "a"])
def test_hostile_names_take_no_time(name: str) -> None:
    expression(name)


def test_a_sum_that_is_not_fulfilled_is_told_and_is_an_axis_of_its_own() -> None:
    specs = (TensorSpec("mask", "int64", ("n", "past + 1")), TensorSpec("past", "float32", ("n", "past", 8)))
    feeds = {"mask": np.ones((1, 4), np.int64), "past": np.ones((1, 0, 8), np.float32)}
    assert free_axes(specs) == (("mask", 0), ("mask", 1), ("past", 1))
    assert broken_sums(specs, feeds) == ["'past + 1' at axis 1 of 'mask' is 4, the sizes given make it 1"]
    assert broken_sums(specs, feeds | {"mask": np.ones((1, 1), np.int64)}) == []
