"""Measuring sessions, and the sizes that are chosen for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seed_exporter.evaluate import footprint
from seed_exporter.evaluate.footprint import measure
from seed_exporter.evaluate.footprint_sizes import ones_at, size_families
from seed_runtime import backends
from seed_runtime.backends import TensorSpec
from seed_runtime.format.primitives import Cursor
from seed_runtime.memory.footprint import UNIT, Footprint
from tests.support.assembled_models import save_layers, save_tokens

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak in /proc")
MIB = 1 << 20

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


@linux
@pytest.mark.slow
def test_the_bound_holds_for_a_session_of_mixed_sizes_and_is_no_waste(tmp_path: Path) -> None:
    measured = measure(save_tokens(tmp_path))
    assert measured is not None
    assert unpacked(measured) == measured
    assert len(measured.pack()) < 100
    for mode in backends.get().modes:
        for top in (40, 130, 250):
            sizes = [top, top // 3, top - 7, 5, top // 2, top]
            dims = {"ids:0": 1, "ids:1": top}
            bound = measured.predict(mode, dims)
            assert peak_of_session(tmp_path, mode, sizes) <= bound < peak_of_session(tmp_path, mode, sizes) + 12 * MIB


@linux
@pytest.mark.slow
def test_sizes_that_the_model_refuses_are_dropped(tmp_path: Path) -> None:
    measured = measure(save_tokens(tmp_path, most=300))
    assert measured is not None
    assert max(point[1] for point in measured.points) == 256


@linux
@pytest.mark.slow
def test_weights_count_once_in_every_mode_although_they_are_copied_or_mapped(tmp_path: Path) -> None:
    measured = measure(save_layers(tmp_path, width=1024, layers=8), [{"x:0": 1}])
    assert measured is not None
    fast, lean, small = measured.modes
    assert fast.mapped * UNIT < 2 * MIB < 32 * MIB <= fast.peaks[0] * UNIT
    assert lean.mapped == small.mapped
    assert 32 * MIB <= lean.mapped * UNIT < 34 * MIB
    assert lean.peaks[0] * UNIT < 20 * MIB


@linux
@pytest.mark.slow
def test_a_model_that_runs_on_no_size_is_not_measured(tmp_path: Path) -> None:
    assert measure(save_tokens(tmp_path, most=3)) is None


def test_a_machine_that_cannot_count_peaks_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_run_child", lambda *arguments, **options: None)
    assert measure(save_layers(tmp_path)) is None


_SESSION = """
import sys
from pathlib import Path
import numpy as np
from seed_runtime import backends
from seed_runtime.memory import process
folder, mode, *sizes = sys.argv[1:]
engine = backends.get()
engine.load()
process.reset_peak()
base = process.baseline().resident
runner = engine.open(Path(folder), mode, 2)
for size in map(int, sizes):
    ids = np.ones((1, size), np.int64)
    runner.run({"ids": ids, "mask": ids})
print(process.peak_rss() - base)
"""


def peak_of_session(folder: Path, mode: str, sizes: list[int]) -> int:
    command = [sys.executable, "-c", _SESSION, str(folder), mode, *map(str, sizes)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def unpacked(measured: Footprint) -> Footprint:
    return Footprint.unpack(Cursor(measured.pack(), "test"))
