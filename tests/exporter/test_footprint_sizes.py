"""Sizes at which memory is measured."""

from __future__ import annotations

import numpy as np

from seed_exporter.evaluate.footprint_sizes import ones_at, size_families
from seed_runtime.backends import TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "sequence"))


MASK = TensorSpec("mask", "int64", ("batch", "sequence"))


PICTURE = TensorSpec("pixels", "float32", (None, 3, None, None))


PIXELS_LAST = TensorSpec("pixels", "uint8", (1, "h", "w", 3))


def test_a_text_model_is_measured_at_sequences_and_at_batches() -> None:
    (points,) = size_families([IDS, MASK])
    assert {"ids:0": 1, "ids:1": 16} in points
    assert {"ids:0": 4, "ids:1": 64} in points
    assert len({point["ids:1"] for point in points}) >= 3


def test_a_picture_model_is_measured_at_squares_and_else_at_strips() -> None:
    squares, *strips = size_families([PICTURE])
    assert all(point["pixels:2"] == point["pixels:3"] for point in squares)
    assert {point["pixels:2"] for family in strips for point in family} == {32, 48, 64}


def test_the_axes_of_a_picture_with_its_channels_last_are_found() -> None:
    assert {"pixels:1": 64, "pixels:2": 64} in size_families([PIXELS_LAST])[0]


def test_a_free_first_axis_alone_is_a_batch() -> None:
    assert size_families([TensorSpec("x", "float32", ("n", 8))]) == [[{"x:0": n} for n in (1, 2, 4, 8)]]


def test_a_model_of_fixed_sizes_has_one_point() -> None:
    assert size_families([TensorSpec("x", "float32", (1, 8))]) == [[{}]]


def test_a_sample_is_scaled_as_a_whole_and_else_along_its_last_axis() -> None:
    whole, strips = size_families([PICTURE], {"pixels:0": 1, "pixels:2": 48, "pixels:3": 320})
    assert {"pixels:0": 1, "pixels:2": 24, "pixels:3": 160} in whole
    assert {"pixels:0": 1, "pixels:2": 48, "pixels:3": 640} in strips


def test_ones_have_the_same_size_wherever_a_name_stands() -> None:
    feeds = ones_at([IDS, MASK], {"ids:0": 2, "ids:1": 5})
    assert {name: array.shape for name, array in feeds.items()} == {"ids": (2, 5), "mask": (2, 5)}
    assert feeds["ids"].dtype == np.int64
