"""Fine-tunes that are killed, interrupted, out of time, or beside another one: what is kept, and what goes on."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.cli import main
from seed_runtime.errors import UsageError
from seed_runtime.seed import Seed
from seed_runtime.system.locks import FileLock
from seed_runtime.tune import Progress, Settings, TuneResult, checkpoint, tune, tuning
from tests.support.shared import SharedFolder
from tests.support.tuned_model import damaged_seed, data

KILLED = """
import os, signal, sys
from seed_runtime.cli import main
from seed_runtime.tune import checkpoint, progress
checkpoint.INTERVAL_S, checkpoint.TIME_SHARE = 0, 1e9
left, report = int(sys.argv[1]), progress.RunProgress.report
def killing(self, *given, **named):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    report(self, *given, **named)
progress.RunProgress.report = killing
sys.exit(main(sys.argv[2:]))
"""
"""Runs seed-run with a checkpoint after every step, and ends it by SIGKILL in some step."""


@pytest.fixture(scope="session")
def seed_of(shared_folder: SharedFolder) -> Callable[[str], Seed]:
    return lambda damage: damaged_seed(shared_folder, damage)


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0)
    monkeypatch.setattr(checkpoint, "TIME_SHARE", math.inf)


def interrupted_at(step: int, tier: str) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if (progress.tier, progress.step) == (tier, step):
            raise KeyboardInterrupt

    return interrupt


def assert_equal(found: TuneResult, expected: TuneResult) -> None:
    assert (found.before, found.after, found.mode) == (expected.before, expected.after, expected.mode)
    assert found.quantization_steps == expected.quantization_steps
    assert found.tensors.keys() == expected.tensors.keys()
    for number, value in expected.tensors.items():
        assert np.array_equal(found.tensors[number], value)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.03), ("sgd", 0.1)])
def test_a_run_goes_on_within_a_tier_and_gives_what_it_would_have_given(
    optimizer: str, rate: float, seed_of, tmp_path: Path, each_step: None
) -> None:
    seed, arrays, path, lines = seed_of("small"), data(), tmp_path / "t.checkpoint", []
    settings = {"mode": "small", "steps": 40, "rate": rate, "optimizer": optimizer, "threads": 1}
    whole = tune(seed, arrays, Settings(**settings))
    for step in (22, 31):
        begun = Settings(**settings, progress=interrupted_at(step, "small"), notice=lines.append)
        assert isinstance(tune(seed, arrays, begun, checkpoint=path).interruption, KeyboardInterrupt)
        assert path.exists()
    found = tune(seed, arrays, Settings(**settings, notice=lines.append), checkpoint=path)
    assert lines == [f"going on after step {step} of small, where this run was interrupted" for step in (21, 30)]
    assert found.steps == whole.steps == 40
    assert whole.tensors
    assert_equal(found, whole)
    assert not path.exists()


def test_a_run_goes_on_after_a_tier_and_gives_what_that_kept_again(seed_of, tmp_path: Path, each_step: None) -> None:
    seed, arrays, path = seed_of("small"), data(), tmp_path / "t.checkpoint"
    whole = tune(seed, arrays, Settings(steps=8, threads=1))
    tune(seed, arrays, Settings(steps=8, threads=1, progress=interrupted_at(1, "small")), checkpoint=path)
    kept: list[TuneResult] = []
    found = tune(seed, arrays, Settings(steps=8, threads=1), checkpoint=path, on_kept=kept.append)
    assert_equal(found, whole)
    assert [(each.tier, each.score, each.kept) for each in found.tiers] == [
        (each.tier, each.score, each.kept) for each in whole.tiers
    ]
    assert kept[0].mode == "head"


@pytest.mark.slow
def test_a_tier_after_the_one_that_was_interrupted_begins_at_its_own_start(
    seed_of, tmp_path: Path, each_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "choose_tiers", lambda *given: ("small", "full"))
    seed, arrays, path = seed_of("small"), data(), tmp_path / "t.checkpoint"
    settings = {"steps": 80, "rate": 0.03, "threads": 1}
    whole = tune(seed, arrays, Settings(**settings))
    assert whole.tiers[0].kept
    assert [each.tier for each in whole.tiers] == ["small", "full"]
    tune(seed, arrays, Settings(**settings, progress=interrupted_at(9, "small")), checkpoint=path)
    found = tune(seed, arrays, Settings(**settings), checkpoint=path)
    assert [(each.tier, each.steps) for each in found.tiers] == [(each.tier, each.steps) for each in whole.tiers]
    assert_equal(found, whole)


def test_other_data_begin_anew(seed_of, tmp_path: Path, each_step: None) -> None:
    seed, arrays, path, lines = seed_of("small"), data(), tmp_path / "t.checkpoint", []
    settings = {"mode": "small", "steps": 8, "threads": 1}
    tune(seed, arrays, Settings(**settings, progress=interrupted_at(5, "small")), checkpoint=path)
    others = arrays | {"x": arrays["x"] + np.float32(0.01)}
    tune(seed, others, Settings(**settings, notice=lines.append), checkpoint=path)
    assert ["other data" in line for line in lines] == [True]


def test_a_second_interruption_ends_the_scoring_of_the_best_so_far(seed_of, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        def again(*given: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("seed_runtime.tune.evaluator.Evaluator._score", again)

    settings = Settings(
        mode="small", steps=60, rate=0.03, threads=1, progress=interrupted_at(30, "small"), interrupted=interrupted
    )
    found = tune(seed_of("small"), data(), settings)
    assert isinstance(found.interruption, KeyboardInterrupt)
    assert (found.tensors, found.after) == ({}, found.before)


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_and_writes_the_same_bytes(seed_of, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **data())
    (tmp_path / "one").mkdir()
    options = ["--fine-tune", str(tmp_path / "data.npz"), "--mode", "small", "--steps", "40", "--lr", "0.03"]
    output = tmp_path / "one" / "tuned.seed"

    def run(reports: int, output: Path) -> int:
        command = [sys.executable, "-c", KILLED, str(reports), str(seed_of("small").path), *options]
        return subprocess.run([*command, "--threads", "1", "-q", "-o", str(output)]).returncode

    codes = [run(20, output) for _ in range(2)]
    assert codes == [-signal.SIGKILL] * 2
    left = {path.name for path in output.parent.iterdir()}
    assert left - {"tuned.seed"} == {"tuned.seed.checkpoint", "tuned.seed.lock"}
    assert run(1000, output) == 0
    assert [path.name for path in output.parent.iterdir()] == ["tuned.seed"]
    assert run(1000, tmp_path / "whole.seed") == 0
    assert output.read_bytes() == (tmp_path / "whole.seed").read_bytes()


def command(seed: Seed, folder: Path, *more: str) -> list[str]:
    if not (folder / "data.npz").exists():
        np.savez(folder / "data.npz", **data())
    options = ["--mode", "head", "--threads", "1", "-o", str(folder / "tuned.seed"), *more]
    return [str(seed.path), "--fine-tune", str(folder / "data.npz"), *options]


def test_a_second_fine_tune_of_the_same_output_is_refused(
    seed_of, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with FileLock(tmp_path / "tuned.seed.lock") as lock:
        assert lock.try_acquire()
        assert main(command(seed_of("head"), tmp_path)) == UsageError.exit_code
    shown = capfd.readouterr()
    assert "is being tuned by another process; wait for it, or give -o another file" in shown.err
    assert shown.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", "tuned.seed.lock"}
    assert main(command(seed_of("head"), tmp_path, "-q")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", "tuned.seed"}


def test_a_full_disk_leaves_the_older_seed(
    seed_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    seed = seed_of("head")
    (tmp_path / "tuned.seed").write_bytes(b"older")
    with seed.assembled():
        monkeypatch.setattr("seed_runtime.system.files.os.fsync", full)
        assert main(command(seed, tmp_path)) == 13
    assert "No space left on device" in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", "tuned.seed"}
    assert (tmp_path / "tuned.seed").read_bytes() == b"older"
