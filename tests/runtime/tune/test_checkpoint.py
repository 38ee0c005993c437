"""Checkpoint files: what is read back, and what is left out with a line for the user."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_runtime.errors import InputError
from seed_runtime.tune import checkpoint
from seed_runtime.tune.checkpoint import CheckpointError, CheckpointFile, Key, run_key
from seed_runtime.tune.records import BN, Score, Settings, TierResult
from seed_runtime.tune.samples import Samples, Split
from seed_runtime.tune.state import State

ARRAYS = {"values.3": np.arange(12, dtype=np.float32).reshape(3, 4), "best.3": np.ones((3, 4), np.float32)}


def key_of(
    seed: bytes = bytes(32), samples: str = "a", held_out: int = 0, backend: str = "1.0", **settings: Any
) -> Key:
    rows = np.arange(3) + held_out
    settings = {"threads": 1, **settings}
    return run_key(seed, Samples({}, None, 9, None, samples), Split(rows, rows, rows), Settings(**settings), backend)


KEY = key_of()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, lines: list[str]) -> CheckpointFile:
    made = CheckpointFile(tmp_path / "t.checkpoint", KEY, lines.append)
    made.write({"state": {"steps": 7}}, ARRAYS)
    return made


def is_found(file: CheckpointFile) -> bool:
    with file.opened() as found:
        return found is not None


def test_a_checkpoint_holds_what_was_written(file: CheckpointFile, tmp_path: Path) -> None:
    with file.opened() as found:
        assert found is not None
        assert found.record["state"] == {"steps": 7}
        for name, array in ARRAYS.items():
            out = np.empty_like(array)
            found.read_into(name, out)
            assert np.array_equal(out, array)
        for name, out in (("other", np.empty(1, np.float32)), ("best.3", np.empty(12, np.float32))):
            with pytest.raises(InputError, match="remove it to start over"):
                found.read_into(name, out)
    assert (tmp_path / "t.checkpoint").stat().st_mode & 0o777 == 0o600
    file.remove()
    assert list(tmp_path.iterdir()) == []
    assert not is_found(file)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["values.3"].tobytes()) + 20] ^= 1
    path.write_bytes(data)


def save(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (flip, "is no checkpoint of a fine-tune, or a damaged one; remove it to start over: rm "),
    "its end": (lambda path: os.truncate(path, path.stat().st_size // 2), "a damaged one"),
    "all of it": (
        lambda path: path.write_bytes(b""),
        "is no checkpoint of a fine-tune, or a damaged one; remove it to start over: rm ",
    ),
    "pickled": (
        lambda path: save(path, record=np.array([{}])),
        "is no checkpoint of a fine-tune, or a damaged one; remove it to start over: rm ",
    ),
    "another file": (
        lambda path: save(path, x=np.ones(3)),
        "is no checkpoint of a fine-tune, or a damaged one; remove it to start over: rm ",
    ),
    "writable for others": (lambda path: path.chmod(0o622), "isn't a file of this user's alone"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_can_not_be_trusted_is_left_out(
    damage: str, file: CheckpointFile, tmp_path: Path, lines: list[str]
) -> None:
    change, problem = DAMAGE[damage]
    change(tmp_path / "t.checkpoint")
    before = (tmp_path / "t.checkpoint").read_bytes()
    with pytest.raises(CheckpointError, match=problem):
        is_found(file)
    assert (tmp_path / "t.checkpoint").read_bytes() == before


def test_a_link_is_left_out(file: CheckpointFile, tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "t.checkpoint").rename(tmp_path / "other")
    (tmp_path / "t.checkpoint").symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match="is a link"):
        is_found(file)


CHANGES = {
    "another seed": {"seed": bytes(31) + b"1"},
    "other data$": {"samples": "b"},
    "another choice of what is held out": {"held_out": 1},
    "--rng-seed 0, not 1": {"rng_seed": 1},
    "--mode auto, not bn": {"mode": "bn"},
    "--lr by default, not 0.1": {"rate": 0.1},
    "--steps 120, not 3, --optimizer adam, not sgd": {"steps": 3, "optimizer": "sgd"},
}


@pytest.mark.parametrize("problem", CHANGES)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(
    problem: str, file: CheckpointFile, tmp_path: Path, lines: list[str]
) -> None:
    with pytest.raises(CheckpointError) as caught:
        is_found(CheckpointFile(tmp_path / "t.checkpoint", key_of(**CHANGES[problem]), lines.append))
    assert re.search(f"t.checkpoint holds a run with {problem}", f"{tmp_path}/t.checkpoint {caught.value.problem}")
    assert caught.value.is_of_options is ("another seed" != problem != "other data$")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"threads": 77}, "--threads 1, not 77"),
        ({"max_memory": 10}, "--max-memory by default, not 10"),
        ({"backend": "2.0"}, "ONNX Runtime 1.0, not 2.0"),
    ],
)
def test_a_run_goes_on_where_only_rounding_is_another(
    change: dict[str, Any], line: str, file: CheckpointFile, tmp_path: Path, lines: list[str]
) -> None:
    assert is_found(CheckpointFile(tmp_path / "t.checkpoint", key_of(**change), lines.append))
    assert lines == [f"this run began with {line}: what it learns may differ in its last digits"]


def test_a_time_limit_is_no_part_of_the_key() -> None:
    assert key_of() == key_of(time_limit=3)


def test_a_full_disk_is_worth_one_line_and_the_checkpoint_before_stays(
    file: CheckpointFile, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(2):
            file.write({"state": {"steps": 8}}, ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["t.checkpoint"]
    assert len(lines) == 1
    assert "No space left on device; without a checkpoint" in lines[0]
    with file.opened() as found:
        assert found is not None
        assert found.record["state"] == {"steps": 7}


def test_a_pipe_is_not_waited_for(tmp_path: Path, lines: list[str]) -> None:
    os.mkfifo(tmp_path / "t.checkpoint")
    with pytest.raises(CheckpointError, match="isn't a file of this user's alone"):
        is_found(CheckpointFile(tmp_path / "t.checkpoint", KEY, lines.append))


def test_a_model_of_too_many_tensors_has_no_checkpoint(tmp_path: Path, lines: list[str]) -> None:
    many = CheckpointFile(tmp_path / "t.checkpoint", KEY, lines.append)
    many.write({}, {str(number): ARRAYS["best.3"] for number in range(4096)})
    assert list(tmp_path.iterdir()) == []
    assert "too many tensors" in lines[0]


def test_what_a_killed_process_left_of_one_is_replaced(file: CheckpointFile, tmp_path: Path) -> None:
    (tmp_path / "t.checkpoint.part").write_bytes(b"half")
    file.write({"state": {}}, ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["t.checkpoint"]


def test_checkpoints_wait_for_some_time_and_longer_where_writing_takes_long(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    made = CheckpointFile(tmp_path / "t.checkpoint", KEY, lines.append)
    now[0] = checkpoint.INTERVAL_S - 1
    assert not made.is_due
    now[0] += 1
    assert made.is_due
    write = checkpoint.atomic_write

    def slow(*given, **named):
        now[0] += 4
        return write(*given, **named)

    monkeypatch.setattr(checkpoint, "atomic_write", slow)
    made.write({}, ARRAYS)
    now[0] += 4 / checkpoint.TIME_SHARE - 1
    assert not made.is_due
    now[0] += 1
    assert made.is_due


def test_without_a_path_nothing_is_written(lines: list[str]) -> None:
    none = CheckpointFile(None, KEY, lines.append)
    assert not none.is_due
    none.write({}, ARRAYS)
    none.remove()
    assert not is_found(none)


def test_a_state_is_read_back_from_its_record() -> None:
    state = State(Score(0.5, 1.0), Score(0.75, 0.5), Score(0.7, 0.6), {"a": 0.25}, BN, 3, done=[BN])
    state.tiers.append(TierResult(BN, Score(0.75, 0.5), True, 0, 8, 1.5))
    assert State.from_record(state.record()) == state
    assert State.from_record(State().record()) == State()
