"""Locks exclude other processes, end with their holder, and are those of the file that has the name now."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seed_runtime.system.locks import BusyError, FileLock, lock_within

HOLDER = """
import sys
from pathlib import Path
from seed_runtime.system.locks import FileLock
with FileLock(Path(sys.argv[1])) as lock:
    lock.acquire(shared=sys.argv[2] == "shared")
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock for the block, unless the block ends it."""
    command = [sys.executable, "-c", HOLDER, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("held", "shared", "exclusive"), [("shared", True, False), ("exclusive", False, False)])
def test_a_lock_of_another_process_is_respected(tmp_path: Path, held: str, shared: bool, exclusive: bool) -> None:
    with holder(tmp_path / "lock", held), FileLock(tmp_path / "lock") as lock:
        assert lock.try_acquire() is exclusive
        assert lock.try_acquire(shared=True) is shared


def test_a_waiting_process_gets_the_lock_when_its_holder_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path / "lock", "exclusive") as process, FileLock(tmp_path / "lock") as lock:
        waits: list[bool] = []

        def end_the_holder() -> None:
            waits.append(True)
            process.kill()

        lock.acquire(on_wait=end_the_holder)
        assert waits == [True]
        lock.release()
        lock.acquire(on_wait=end_the_holder)
        assert waits == [True]


def test_a_lock_file_is_for_its_owner_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    FileLock(tmp_path / "lock").close()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to("lock")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "none", create=False)


def test_a_file_that_was_renamed_or_replaced_is_not_in_place(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as lock:
        assert lock.is_in_place()
        (tmp_path / "lock").rename(tmp_path / "other")
        assert not lock.is_in_place()
        (tmp_path / "lock").touch()
        assert not lock.is_in_place()


def test_waiting_for_a_lock_ends_in_time(tmp_path: Path) -> None:
    retries: list[float] = []
    with holder(tmp_path / "lock", "exclusive"):
        start = time.monotonic()
        with pytest.raises(BusyError, match="somebody works here"):
            lock_within(
                tmp_path / "lock", 0.25, "somebody works here", on_retry=lambda: retries.append(time.monotonic())
            )
        assert 0.2 < time.monotonic() - start < 5
    assert retries
    lock_within(tmp_path / "lock", 10, "").close()


def test_the_folder_of_a_lock_is_created(tmp_path: Path) -> None:
    lock_within(tmp_path / "a" / "b" / "lock", 0, "").close()
    assert os.listdir(tmp_path / "a" / "b") == ["lock"]
