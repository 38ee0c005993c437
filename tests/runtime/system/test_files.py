"""A finished file replaces the old one in one step; anything that isn't a file is never replaced."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from seed_runtime.errors import UsageError
from seed_runtime.system import files


def put(path: Path, content: bytes = b"new") -> None:
    with files.atomic_write(path) as file:
        file.write(content)


def fail(path: Path, error: type[BaseException]) -> None:
    with files.atomic_write(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_appears_whole_with_the_permissions_that_the_user_wants(tmp_path: Path, umask: int) -> None:
    target = tmp_path / "y"
    before = os.umask(umask)
    try:
        with files.atomic_write(target) as file:
            file.write(b"new")
            file.flush()
            assert not target.exists()
    finally:
        os.umask(before)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["y"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o400])
def test_a_file_that_is_replaced_keeps_its_permissions_from_the_first_byte(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "y"
    target.write_bytes(b"old")
    target.chmod(mode)
    with files.atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
        assert os.fstat(file.fileno()).st_mode & 0o777 == mode
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"new", mode)


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, stop: type[BaseException]) -> None:
    put(tmp_path / "y", b"old")
    with pytest.raises(stop):
        fail(tmp_path / "y", stop)
    assert (tmp_path / "y").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["y"]


def test_the_file_and_its_folder_are_on_the_disk_when_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    put(tmp_path / "y")
    assert [Path(name).parent for name in synced] == [tmp_path, tmp_path.parent]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub/y")
    for content in (b"made", b"replaced"):
        put(tmp_path / "link", content)
        assert (tmp_path / "sub" / "y").read_bytes() == content
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "sub") == ["y"]


def test_a_pipe_and_a_device_are_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    put(fifo)
    reader.join(60)
    assert read == [b"new"]
    assert fifo.is_fifo()
    put(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    # A pipe that has no name of its own but that of a descriptor.
    source, sink = os.pipe()
    put(Path(f"/dev/fd/{sink}"))
    os.close(sink)
    with open(source, "rb") as pipe:
        assert pipe.read() == b"new"


def test_the_longest_name_works_and_a_longer_one_is_refused(tmp_path: Path) -> None:
    put(tmp_path / ("y" * 255))
    with pytest.raises(UsageError, match="name too long; give another path"):
        files.check_writable(tmp_path / ("y" * 256))


@pytest.mark.parametrize(("name", "problem"), [(".", "is a folder; name a file in it"), ("none/y", "make it: mkdir")])
def test_a_path_that_cannot_be_a_file_is_refused_before_any_work(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem), files.atomic_write(tmp_path / name):
        pytest.fail("the work began")
    assert os.listdir(tmp_path) == []


def test_one_file_is_the_same_by_all_its_names(tmp_path: Path) -> None:
    one = tmp_path / "one"
    assert files.is_same_file(one, tmp_path / "none" / ".." / "one")  # not there yet
    one.touch()
    (tmp_path / "link").symlink_to(one)
    (tmp_path / "hard").hardlink_to(one)
    (tmp_path / "two").touch()
    assert [files.is_same_file(one, tmp_path / name) for name in ("one", "link", "hard", "two", "none")] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert not files.is_same_file("/dev/null", "/dev/null")
