"""Footprints of small models are shortened, and what they predict is never lower."""

from __future__ import annotations

import numpy as np
import pytest

from seed_exporter.evaluate import footprint
from seed_exporter.evaluate.golden import golden_from_runs
from seed_exporter.evaluate.thinning import thinned, thinned_size_max
from seed_runtime import backends
from seed_runtime.backends import TensorSpec
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.golden import Recipe
from seed_runtime.memory.footprint import Footprint, ModeFootprint

AXES = (("x", 0), ("x", 2))
POINTS = ((1, 64), (1, 128), (1, 256), (1, 320), (4, 128), (4, 256))


@pytest.fixture
def measured() -> Footprint:
    """Peaks that grow with the area of an image and a batch."""
    peaks = tuple(30 + batch * side**2 // 4096 for batch, side in POINTS)
    modes = tuple(ModeFootprint(mode, 40 - place, 1, peaks) for place, mode in enumerate(backends.get().modes))
    return Footprint(AXES, POINTS, modes)


def test_a_footprint_that_is_short_enough_stays_as_it_is(measured: Footprint) -> None:
    assert thinned(measured, len(measured.pack())) is measured


def test_points_between_the_smallest_and_the_largest_go_first_and_then_the_slower_modes(measured: Footprint) -> None:
    fewer = thinned(measured, len(measured.pack()) - 1)
    assert fewer.points == ((1, 64), (1, 320), (4, 256))
    assert len(fewer.modes) == len(measured.modes)
    shortest = thinned(measured, 0)
    assert shortest.points == fewer.points
    assert [mode.name for mode in shortest.modes] == [backends.get().modes[0]]


@pytest.mark.parametrize("size", [0, 60])
def test_what_a_shorter_footprint_predicts_is_never_lower_and_covers_the_same_sizes(
    size: int, measured: Footprint
) -> None:
    short = thinned(measured, size)
    for batch in (1, 2, 4):
        for side in (1, 64, 100, 200, 256, 320):
            dims = {"x:0": batch, "x:2": side}
            assert short.covers(dims) == measured.covers(dims)
            for mode in short.modes if measured.covers(dims) else ():
                assert short.predict(mode.name, dims) >= measured.predict(mode.name, dims)


@pytest.mark.parametrize("size", [0, 40, 80, 4096])
def test_the_room_that_is_kept_for_a_footprint_is_enough_and_no_more_than_for_a_whole_one(
    size: int, measured: Footprint
) -> None:
    specs = (TensorSpec("x", "float32", (None, 3, None)),)
    room = thinned_size_max(specs, size)
    assert len(thinned(measured, size).pack()) <= room <= footprint.packed_size_max(specs)


@pytest.mark.parametrize(("size", "values"), [(512, 64), (100, 16), (40, 2), (0, 1)])
def test_a_golden_sample_has_fewer_values_where_it_may_take_less(size: int, values: int) -> None:
    recipe = Recipe(2, BY_NAME["float32"], (1, 4))
    outputs = {"y": np.arange(400, dtype=np.float32)}
    made = golden_from_runs([outputs, outputs], [recipe], 1, size=size)
    assert made is not None
    assert len(made.outputs[0].values) == values
    assert len(made.pack()) <= max(size, 40)
