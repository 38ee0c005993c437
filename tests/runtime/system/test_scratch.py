"""Scratch folders: gone after their block, swept after a kill, and never while their process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seed_runtime.system.locks import FileLock
from seed_runtime.system.scratch import scratch_folder, sweep

HOLD = """
import sys
from pathlib import Path
from seed_runtime.system.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(bytes(1000))
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a scratch folder until its stdin ends."""
    command = [sys.executable, "-c", HOLD, str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_private_and_removed_after_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_bytes(b"x")
        sweep([tmp_path])  # of this very process
        assert (folder / "file").exists()
    with pytest.raises(KeyError), scratch_folder(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_what_the_next_sweep_removes_and_a_living_one_keeps_its_folder(tmp_path: Path) -> None:
    living, kept = holder(tmp_path)
    killed, left = holder(tmp_path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.is_dir()
        sweep([tmp_path, tmp_path / "nowhere"])
        assert not left.exists()
        assert (kept / "sub" / "weights").exists()
    finally:
        living.communicate("")
    assert living.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_only_folders_of_this_kind_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"x")
    for name in ("seed-scratch-0123456", "seed-scratch-012345678", "seed-scratch-0123456G", "seed-run-abcdefgh"):
        (tmp_path / name).mkdir()
    (tmp_path / "seed-scratch-00000001").write_bytes(b"a file")
    (tmp_path / "seed-scratch-00000002").symlink_to(elsewhere)
    (tmp_path / "seed-scratch-00000003").mkdir()
    before = set(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)  # another user's
        sweep([tmp_path])
    assert set(tmp_path.iterdir()) == before
    sweep([tmp_path])
    assert before - set(tmp_path.iterdir()) == {tmp_path / "seed-scratch-00000003"}
    assert (elsewhere / "precious").exists()


def test_a_new_folder_that_another_process_takes_for_a_leftover_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between making and locking it.
    opened = FileLock.__init__
    taken: list[Path] = []

    def late(self: FileLock, path: Path, **options: bool) -> None:
        if not taken:
            taken.append(path)
            path.rmdir()
        opened(self, path, **options)

    monkeypatch.setattr(FileLock, "__init__", late)
    with scratch_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert folder != taken[0]


def test_without_locks_folders_are_used_and_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, *, shared: bool = False) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(FileLock, "try_acquire", refuse)
    with scratch_folder(tmp_path) as folder:
        sweep([tmp_path])
        assert folder.is_dir()
