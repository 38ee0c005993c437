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


def decoder(total: str) -> list[TensorSpec]:
    return [
        TensorSpec("ids", "int64", ("batch", "sequence")),
        TensorSpec("mask", "int64", ("batch", total)),
        TensorSpec("past", "float32", ("batch", "past", 8)),
    ]


def test_sums_of_dimensions_grow_with_their_terms() -> None:
    (points,) = size_families(decoder("past + sequence"))
    assert all(point["mask:1"] == point["ids:1"] + point["past:1"] for point in points)
    ((one, *_),) = size_families([TensorSpec("x", "float32", ("2*k", 8))])
    assert one == {"x:0": 32}


def test_where_the_names_say_nothing_true_the_sizes_that_ran_grow_as_a_whole() -> None:
    sample = {"ids:0": 1, "ids:1": 16, "mask:1": 32, "past:1": 16}
    usual, scaled = size_families(decoder("past + 1"), None, sample)
    assert {"ids:0": 1, "ids:1": 64, "mask:1": 65, "past:1": 64} in usual
    assert {"ids:0": 1, "ids:1": 64, "mask:1": 128, "past:1": 64} in scaled


def test_what_ran_at_a_size_of_1_or_0_stays_there() -> None:
    for ids, past in ((1, 16), (16, 0)):
        sample = {"ids:0": 1, "ids:1": ids, "mask:1": past + 1, "past:1": past}
        scaled = size_families(decoder("past + 1"), None, sample)[-1]
        assert all(point["mask:1"] == point["past:1"] + 1 for point in scaled)
        assert {point["ids:1" if ids == 1 else "past:1"] for point in scaled} == {min(ids, past)}


def test_sizes_that_processing_makes_come_before_the_usual_ones() -> None:
    described = [{"pixels:2": side, "pixels:3": side} for side in (160, 320, 640, 1280)]
    first, *others = size_families([PICTURE], described=described)
    assert {"pixels:0": 1, "pixels:2": 1280, "pixels:3": 1280} in first
    assert {"pixels:0": 4, "pixels:2": 640, "pixels:3": 640} in first
    assert others == size_families([PICTURE])
    assert size_families([IDS], described=described) == size_families([IDS])
    sample = {"pixels:0": 1, "pixels:2": 64, "pixels:3": 64}
    assert size_families([PICTURE], sample, None, described) == size_families([PICTURE], sample)
