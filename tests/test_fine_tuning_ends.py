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

from seed_runtime import tuned_seed
from seed_runtime.cli import main
from seed_runtime.errors import TrustError, UnsupportedError, UsageError
from seed_runtime.seed import Seed
from seed_runtime.system.locks import FileLock
from seed_runtime.tune import Progress, Settings, TuneResult, checkpoint, tune, tuning
from seed_runtime.tune.checkpoint import CheckpointError
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
    assert lines == [f"going on after step {step} of small, where this run was interrupted" for step in (22, 31)]
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
    assert [each.mode for each in kept] == ["head"]  # at the end: what is there may be better until then


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


def test_a_checkpoint_of_other_data_or_options_is_refused_and_stays(seed_of, tmp_path: Path, each_step: None) -> None:
    seed, arrays, path = seed_of("small"), data(), tmp_path / "t.checkpoint"
    settings = {"mode": "small", "steps": 8, "threads": 1}
    tune(seed, arrays, Settings(**settings, progress=interrupted_at(5, "small")), checkpoint=path)
    others = arrays | {"x": arrays["x"] + np.float32(0.01)}
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"holds a run with other data; .* to start over: rm .*/t.checkpoint"):
        tune(seed, others, Settings(**settings), checkpoint=path)
    with pytest.raises(CheckpointError, match=r"with --steps 8, not 9; give the same options to go on, or remove it"):
        tune(seed, arrays, Settings(**settings | {"steps": 9}), checkpoint=path)
    assert path.read_bytes() == before


def test_a_run_goes_on_with_another_number_of_threads_and_says_what_that_changes(
    seed_of, tmp_path: Path, each_step: None
) -> None:
    seed, arrays, path, lines = seed_of("small"), data(), tmp_path / "t.checkpoint", []
    settings = {"mode": "small", "steps": 8}
    begun = Settings(**settings, threads=1, progress=interrupted_at(5, "small"))
    tune(seed, arrays, begun, checkpoint=path)
    assert tune(seed, arrays, Settings(**settings, threads=2, notice=lines.append), checkpoint=path).steps == 8
    assert "--threads 1, not 2: what it learns may differ in its last digits" in lines[0]
    assert "going on after step 5" in lines[1]


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
    assert left - {"tuned.seed"} == {".tuned.seed.seed-checkpoint", ".tuned.seed.seed-lock"}
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
    with FileLock(tmp_path / ".tuned.seed.seed-lock") as lock:
        assert lock.try_acquire()
        assert main(command(seed_of("head"), tmp_path)) == UsageError.exit_code
    shown = capfd.readouterr()
    assert "is being tuned by another process; wait for it, or give -o another file" in shown.err
    assert shown.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", ".tuned.seed.seed-lock"}
    assert main(command(seed_of("head"), tmp_path, "-q")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", "tuned.seed"}


def test_files_that_no_fine_tune_made_are_neither_read_nor_removed(
    seed_of, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seed = seed_of("head")
    for name in ("tuned.seed.lock", "tuned.seed.checkpoint", "tuned.seed.checkpoint.part"):
        (tmp_path / name).write_text("mine")
    assert main(command(seed, tmp_path, "-q")) == 0
    for name in ("tuned.seed.lock", "tuned.seed.checkpoint", "tuned.seed.checkpoint.part"):
        assert (tmp_path / name).read_text() == "mine"
    for end, content in (("lock", "mine"), ("checkpoint", "mine"), ("checkpoint", None), ("checkpoint.part", None)):
        path = tmp_path / f".tuned.seed.seed-{end}"
        path.symlink_to("tuned.seed.lock") if content is None else path.write_text(content)
        assert main(command(seed, tmp_path)) == UsageError.exit_code
        assert str(path) in capfd.readouterr().err
        assert path.read_text() == "mine"
        path.unlink()


@pytest.mark.parametrize("length", [230, 250])
def test_an_output_with_a_long_name_is_written(length: int, seed_of, tmp_path: Path) -> None:
    name = "n" * length
    assert main([*command(seed_of("head"), tmp_path), "-q", "-o", str(tmp_path / name)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", name}


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


def test_going_on_leaves_the_output_until_something_is_kept(seed_of, tmp_path: Path, each_step: None) -> None:
    seed, arrays, path = seed_of("small"), data(), tmp_path / "t.checkpoint"
    settings = {"steps": 8, "threads": 1}
    begun = tune(seed, arrays, Settings(**settings, progress=interrupted_at(2, "small")), checkpoint=path)
    assert [(each.tier, each.kept) for each in begun.tiers if each.kept]
    written: list[TuneResult] = []
    again = Settings(**settings, progress=interrupted_at(3, "small"))
    found = tune(seed, arrays, again, checkpoint=path, on_kept=written.append)
    assert written == []
    assert not begun.after > found.after


def test_an_interruption_in_a_tier_without_steps_leaves_those_before_it(seed_of, tmp_path: Path) -> None:
    seed, arrays, path, lines = seed_of("small"), data(), tmp_path / "t.checkpoint", []
    whole = tune(seed, arrays, Settings(steps=8, threads=1))
    assert whole.tiers[1].kept
    tune(seed, arrays, Settings(steps=8, threads=1, progress=interrupted_at(3, "head")), checkpoint=path)
    found = tune(seed, arrays, Settings(steps=8, threads=1, notice=lines.append), checkpoint=path)
    assert any("going on after bn" in line for line in lines)
    assert_equal(found, whole)


def test_a_tier_that_was_interrupted_is_in_the_table_with_its_steps(seed_of) -> None:
    settings = Settings(mode="small", steps=60, rate=0.03, threads=1, progress=interrupted_at(30, "small"))
    found = tune(seed_of("small"), data(), settings)
    assert [(each.tier, each.steps, each.kept) for each in found.tiers] == [("small", 30, True)]


def test_an_output_that_can_not_be_written_after_a_tier_is_tried_again_at_the_end(
    seed_of, tmp_path: Path, each_step: None
) -> None:
    path, lines, left = tmp_path / "t.checkpoint", [], [TrustError("the list is damaged"), None]

    def write(found: TuneResult) -> None:
        error = left.pop(0)
        if error is not None:
            raise error

    settings = Settings(mode="head", threads=1, notice=lines.append)
    assert tune(seed_of("head"), data(), settings, checkpoint=path, on_kept=write).tensors
    assert (left, lines) == ([], ["the list is damaged; the run goes on, and tries that again at its end"])
    assert not path.exists()
    left += [OSError(28, "full", "t.seed"), OSError(28, "full", "t.seed"), None]
    with pytest.raises(OSError, match="full"):
        tune(seed_of("head"), data(), settings, checkpoint=path, on_kept=write)
    assert path.exists()
    assert tune(seed_of("head"), data(), settings, checkpoint=path, on_kept=write).tensors
    assert (left, path.exists()) == ([], False)


def test_an_output_within_the_data_is_refused(seed_of, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "0").mkdir(parents=True)
    for name in ("tuned.seed", "0/tuned.seed"):
        arguments = [
            str(seed_of("head").path),
            "--fine-tune",
            str(tmp_path / "data"),
            "-o",
            str(tmp_path / "data" / name),
        ]
        assert main(arguments) == UsageError.exit_code
        assert "is within the data" in capfd.readouterr().err


def test_the_longest_chain_is_refused_before_the_training(
    seed_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuned_seed, "CHAIN_MAX", 0)
    monkeypatch.setattr("seed_runtime.cli.fine_tune.tune", lambda *given, **named: pytest.fail("it was trained"))
    assert main(command(seed_of("head"), tmp_path)) == UnsupportedError.exit_code
    assert "--assemble FOLDER writes the model, for seed-export" in capfd.readouterr().err


def test_seed_and_data_are_not_both_read_from_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-", "--fine-tune", "-"]) == UsageError.exit_code
    assert "would both be read from stdin" in capfd.readouterr().err
