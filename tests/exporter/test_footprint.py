"""Measuring the memory of sessions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seed_exporter.evaluate import footprint, footprint_process
from seed_exporter.evaluate.footprint import measure
from seed_runtime import backends
from seed_runtime.backends.onnxruntime import OnnxRuntimeRunner
from seed_runtime.format.primitives import Cursor
from seed_runtime.memory import process
from seed_runtime.memory.footprint import UNIT, Footprint
from tests.support.assembled_models import save_layers, save_tokens

pytestmark = pytest.mark.usefixtures("all_sizes_measured")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak in /proc")


MIB = 1 << 20


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


def test_the_largest_size_of_processing_is_measured_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(backend: str, mode: str, folder: Path, file: Path) -> footprint._Measured:
        with np.load(file) as feeds:
            return footprint._Measured(MIB, 0, feeds["ids"].size << 10)

    monkeypatch.setattr(footprint, "_run_child", counted)
    monkeypatch.setattr(footprint, "TIME_S", 0)
    sizes = (80, 160, 320, 640)
    largest = []
    for described in ([], [{"ids:1": size} for size in sizes]):
        measured = measure(save_tokens(tmp_path), described=described)
        assert measured is not None
        largest.append(max(point[1] for point in measured.points))
    assert largest == [256, 640]


def test_a_machine_that_cannot_count_peaks_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_run_child", lambda *arguments, **options: None)
    assert measure(save_layers(tmp_path)) is None


@linux
@pytest.mark.parametrize(("long_s", "runs"), [(60.0, 2), (-1.0, 1)])
def test_a_long_run_is_not_repeated_and_counts_for_more(
    long_s: float, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    usage = process.Usage(resident=10 * MIB, peak=26 * MIB)
    monkeypatch.setattr(footprint_process, "LONG_S", long_s)
    monkeypatch.setattr(process, "reset_peak", lambda: True)
    monkeypatch.setattr(process, "baseline", lambda: usage)
    monkeypatch.setattr(OnnxRuntimeRunner, "run", lambda _, feeds: seen.append(feeds))
    np.savez(tmp_path / "feeds.npz", x=np.ones((1, 64), np.float32))
    answer = footprint_process._measure("onnxruntime", "lean", 1, save_layers(tmp_path), str(tmp_path / "feeds.npz"))
    alone = (26 - 10) * MIB - answer["mapped"]
    assert len(seen) == runs
    assert answer["peak"] == (alone if runs == 2 else alone + alone // 8)


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
