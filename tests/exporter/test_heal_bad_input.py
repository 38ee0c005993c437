"""What healing does with inputs on which the model answers with NaN, and where no checkpoint can be written."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from seed_exporter.quantize.trail import Trail
from seed_exporter.records import Work
from seed_exporter.results import Options
from seed_exporter.stages.course import Course
from seed_runtime.errors import InputError, UsageError
from seed_runtime.system.files import atomic_write
from tests.exporter.support.command import Ran
from tests.exporter.support.exporting import layers

NO_TORCH = {"exc_type": ImportError}
torch = pytest.importorskip("torch", **NO_TORCH)
checkpoint = pytest.importorskip("seed_exporter.heal.checkpoint", **NO_TORCH)
judges = pytest.importorskip("seed_exporter.heal.judges", **NO_TORCH)


class BrokenFile:
    def write(self, _: Any) -> None:
        raise OSError(errno.EIO, "I/O error")


class Heal:
    """Runs the command on a small model and 96 inputs."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capfd = folder, capfd
        self.inputs = np.random.default_rng(0).standard_normal((96, 1, 24)).astype(np.float32)

    def __call__(self, *options: str | Path, logarithm: bool = False, model_seed: int = 0, size: int = 3000) -> Ran:
        model = layers(np.random.default_rng(model_seed), 24, 48, 10)
        if logarithm:
            last = model.graph.node[-1]
            last.output[0] = "before"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(20), "twenty"))
            model.graph.node.append(helper.make_node("Add", ["before", "twenty"], ["above"]))
            model.graph.node.append(helper.make_node("Log", ["above"], ["y"]))
        onnx.save(model, self.folder / "m.onnx")
        np.savez(self.folder / "data.npz", x=self.inputs)
        return Ran(
            self._capfd, self.folder / "m.onnx", "-o", self.folder / "m.seed", "--heal", self.folder / "data.npz",
            "--size", str(size), "--jobs", "1", *options,
        )  # fmt: skip


@pytest.fixture
def heal(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    short_healing: Callable[..., Any],
    without_measured_memory: None,
) -> Heal:
    short_healing(steps=40, batch=8, looks=8)
    return Heal(tmp_path, capfd)


@pytest.mark.slow
def test_inputs_that_the_model_maps_to_nan_are_counted_and_left_out(heal: Heal):
    # The last inputs are trained on.
    heal.inputs[-6::2] *= 300
    ran = heal(logarithm=True)
    assert ran.code == 0, ran.err
    left_out = re.search(r"(\d) of 63 inputs of --heal are left out: the model answers with NaN", ran.err)
    assert left_out
    assert 1 <= int(left_out[1]) <= 3


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_is_said_and_the_seed_is_written_all_the_same(
    heal: Heal, monkeypatch: pytest.MonkeyPatch
):
    def full(_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "atomic_write", full)
    ran = heal("--resume", heal.folder / "state")
    assert ran.code == 0, ran.err
    assert "training.npz (No space left on device); training goes on: free some space" in ran.err
    assert (heal.folder / "m.seed").exists()


@pytest.mark.slow
def test_a_size_that_time_does_not_suffice_for_gives_the_best_so_far_and_15(heal: Heal):
    ran = heal("--time-limit", "1s", size=200)
    assert ran.code == 15
    written = (heal.folder / "m.seed").stat().st_size
    assert f"200 bytes was not reached: {written:,} bytes" in ran.err
    assert "the best so far, and was written to" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_ctrl_c_writes_the_best_so_far(
    number: int, code: int, heal: Heal, monkeypatch: pytest.MonkeyPatch
):
    healing: Any = pytest.importorskip("seed_exporter.heal.healing", **NO_TORCH)
    steer = healing.Healing.steer

    def interrupted(run: Any, share: float) -> None:
        steer(run, share)
        if share > 0.7:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(healing.Healing, "steer", interrupted)
    ran = heal("--resume", heal.folder / "state", "--report", heal.folder / "r.html")
    assert ran.code == code
    assert (heal.folder / "state" / "training.npz").exists()
    assert (heal.folder / "m.seed").exists() == (number == signal.SIGINT)
    page = (heal.folder / "r.html").read_text()
    assert 'http-equiv="refresh"' not in page
    assert ("Where the bytes went" if number == signal.SIGINT else "ended without a seed: it was stopped") in page


@pytest.mark.slow
def test_a_checkpoint_of_another_model_and_a_cut_one_are_refused_and_stay(heal: Heal):
    state = heal.folder / "state"
    assert heal("--resume", state).code == 0
    held = (state / "training.npz").read_bytes()
    ran = heal("--resume", state, model_seed=1)
    assert ran.code == 3
    assert "of a training with another model" in ran.err
    assert (state / "training.npz").read_bytes() == held
    (state / "training.npz").write_bytes(held[: len(held) // 2])
    ran = heal("--resume", state)
    assert ran.code == 3
    assert "no checkpoint, or it is damaged" in ran.err


def test_a_time_limit_for_a_few_steps_is_said_to_be_too_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr("seed_exporter.stages.course.time", SimpleNamespace(monotonic=lambda: 100.0))
    work = Work(Options(), tmp_path, lambda *_: None, deadline=160.0, say=said.append)
    course = Course("m", 1000, Trail(), work)
    course.start(1.0, 3000, on_gpu=False, first=0.0)
    course.start(0.1, 3000, on_gpu=True, first=0.5)
    few, enough = said
    assert few.startswith("healing on the CPU, as torch finds no GPU: 1 s a step, 60 steps until the time limit")
    assert few.endswith("too few to heal anything; give it more time")
    assert enough == "healing on a GPU: goes on at 50 %, 0.1 s a step, 600 steps until the time limit"


def test_a_folder_for_checkpoints_that_cannot_be_made_is_refused_before_training(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no such folder can be made"):
        checkpoint.Checkpoints(tmp_path / "file" / "state", "key")


def test_a_checkpoint_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    held = checkpoint.Checkpoints(tmp_path / "state", "key", said.append)
    held.write({"a": np.arange(3)}, {"share": 0.5})

    @contextmanager
    def broken(path: Path) -> Iterator[Any]:
        with atomic_write(path) as file:
            file.write(b"half")
            yield BrokenFile()

    monkeypatch.setattr(checkpoint, "atomic_write", broken)
    held.write({"a": np.arange(4)}, {"share": 0.6})
    arrays, facts = held.read()
    assert arrays["a"].tolist() == [0, 1, 2]
    assert facts["share"] == 0.5
    assert "I/O error" in said[0]
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["training.npz"]


def test_data_of_which_most_batches_give_nan_is_refused():
    usable = judges.Usable(torch.device("cpu"))
    for _ in range(9):
        usable.add([torch.ones(2), torch.tensor([1.0, float("inf")])])
    usable.check()
    assert "in 9 of 9 batches" in usable.text()
    for _ in range(11):
        usable.add([torch.ones(2)])
    usable.check()
    for _ in range(3):
        usable.add([torch.tensor([float("nan")])])
    with pytest.raises(InputError, match="in 12 of 23 batches of --heal"):
        usable.check()
    usable.forget()
    assert usable.all
    assert usable.text() == ""


def test_statistics_of_batch_norms_outlive_a_batch_of_infinities():
    from seed_exporter.heal.batch_norms import BatchNorms, NormPair
    from seed_exporter.heal.registry import Call

    vectors = tuple(np.full(4, value, np.float32) for value in (1.0, 0.0, 0.5, 2.0))
    norms = BatchNorms([NormPair("w", "b", "y", vectors, 1e-5)], torch.device("cpu"))
    run = norms.operators()["y"]
    images = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) + 3
    broken = images.clone()
    broken[0, 0, 0, 0] = float("inf")

    def call(x: Any) -> None:
        run(Call([x], {}, 18, torch.float32))

    call(broken)
    for number, x in enumerate((images, broken, images)):
        norms.start_estimate(number)
        call(x)
    norms.end_estimate()
    assert all(bool(torch.isfinite(each).all()) for each in norms.statistics())
    assert torch.allclose(norms.means["y"], images.mean((0, 2, 3)))
