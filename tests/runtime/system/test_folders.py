"""A finished folder replaces the old one in one step, and only if its kind may be replaced."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.errors import InputError
from seed_runtime.system.folders import FolderKind, atomic_folder, recover, temporary_folder

FILES = frozenset({"model.onnx", "model.weights"})


def is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty or holds exactly the files of a model."""
    return folder.is_dir() and set(os.listdir(folder)) in (set(), FILES)


KIND = FolderKind("a model", FILES, is_replaceable)


def fill(part: Path, text: str = "new") -> None:
    (part / "model.onnx").write_bytes(b"graph")
    (part / "model.weights").write_text(text)


def put(target: Path, text: str = "new") -> None:
    with atomic_folder(target, KIND) as part:
        assert part.parent == target.resolve().parent
        assert os.listdir(part) == []
        fill(part, text)


def fail(target: Path, error: type[BaseException]) -> None:
    with atomic_folder(target, KIND) as part:
        (part / "model.weights").write_text("half")
        raise error


def text_of(target: Path) -> str:
    """Return the weights of a folder that holds a model and nothing else."""
    assert {entry.name for entry in target.iterdir()} == {"model.onnx", "model.weights"}
    return (target / "model.weights").read_text()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_folder_appears_whole_with_the_permissions_that_the_user_wants(tmp_path: Path, umask: int) -> None:
    target = tmp_path / "model"
    before = os.umask(umask)
    try:
        with atomic_folder(target, KIND) as part:
            fill(part, "new")
            assert not target.exists()
    finally:
        os.umask(before)
    assert text_of(target) == "new"
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask
    assert os.listdir(tmp_path) == ["model"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "model")
    assert text_of(tmp_path / "a" / "b" / "model") == "new"


def test_an_error_leaves_nothing_not_even_parents(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail(tmp_path / "a" / "b" / "model", RuntimeError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_model(tmp_path: Path, stop: type[BaseException]) -> None:
    put(tmp_path / "model", "old")
    with pytest.raises(stop):
        fail(tmp_path / "model", stop)
    assert text_of(tmp_path / "model") == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_without_an_exchange_in_the_kernel_two_renames_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "model", "old")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    put(tmp_path / "model", "new")
    assert text_of(tmp_path / "model") == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_that_is_put_into_the_folder_meanwhile_is_not_lost(tmp_path: Path) -> None:
    target = tmp_path / "model"
    put(target, "old")

    def disturbed() -> None:
        with atomic_folder(target, KIND) as part:
            fill(part, "new")
            (target / "notes.txt").write_text("mine")

    with pytest.raises(InputError):
        disturbed()
    assert sorted(os.listdir(target)) == ["model.onnx", "model.weights", "notes.txt"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(InputError):
        put(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "a file"


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    put(tmp_path / "v1", "old")
    (tmp_path / "current").symlink_to("v1")
    put(tmp_path / "current", "new")
    assert (tmp_path / "current").readlink() == Path("v1")
    assert text_of(tmp_path / "v1") == "new"
    assert sorted(os.listdir(tmp_path)) == ["current", "v1"]


def test_the_working_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="working folder"):
        put(Path())


def test_a_relative_target_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path("model"))
    assert text_of(tmp_path / "model") == "new"


def test_leftovers_of_a_killed_process_are_removed_and_folders_in_use_are_not(tmp_path: Path) -> None:
    left, used, other = (tmp_path / f".{name}.part" for name in ("model.0123abcd", "model.4567abcd", "other.0123abcd"))
    for folder in (left, used, other):
        folder.mkdir()
        (folder / "model.weights").write_text("half")
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    put(tmp_path / "model")
    os.close(descriptor)
    assert sorted(os.listdir(tmp_path)) == [used.name, other.name, "model"]
    put(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == [other.name, "model"]


@pytest.mark.parametrize("name", ["backup.part", "0123abc.part", "0123abcde.part", "0123ABCD.part", "0123abcd.bak"])
def test_folders_with_similar_names_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / f".model.{name}").mkdir()
    theirs = tmp_path / ".model.0123abcd.part"
    theirs.mkdir()
    (theirs / "thesis.txt").touch()
    put(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == sorted([f".model.{name}", theirs.name, "model"])


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())


@pytest.mark.parametrize("works", [True, False])
def test_a_kill_between_two_renames_loses_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    target = tmp_path / "model"
    put(target, "old")
    without_exchange(monkeypatch)
    child = os.fork()
    if not child:
        rename = Path.rename

        def last(path: Path, to: Path) -> None:
            rename(path, to)
            os._exit(9)  # no finally runs, as after a kill

        Path.rename = last  # type: ignore[assignment, method-assign]
        put(target, "lost")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not target.exists()
    assert len(os.listdir(tmp_path)) == 2
    if works:
        put(target)
    else:
        with pytest.raises(RuntimeError):
            fail(target, RuntimeError)
    assert text_of(target) == ("new" if works else "old")
    assert os.listdir(tmp_path) == ["model"]


def test_an_old_model_that_was_replaced_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "model"
    put(target, "new")
    (tmp_path / ".model.0123abcd.old").mkdir()
    fill(tmp_path / ".model.0123abcd.old", "old")
    with pytest.raises(RuntimeError):
        fail(target, RuntimeError)
    assert text_of(target) == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_a_rename_that_fails_restores_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    put(target, "old")
    without_exchange(monkeypatch)
    rename = Path.rename

    def fails(path: Path, to: Path) -> None:
        if path.suffix == ".part":
            raise PermissionError
        rename(path, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(PermissionError):
        put(target)
    assert text_of(target) == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_a_new_folder_that_another_process_removes_at_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, made = Path.mkdir, []

    def swept(path: Path, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        if path.suffix == ".part":
            made.append(path)
            if len(made) == 1:
                recover(tmp_path / "model", KIND)

    monkeypatch.setattr(Path, "mkdir", swept)
    put(tmp_path / "model")
    assert len(made) == 2
    assert text_of(tmp_path / "model") == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_special_characters_of_patterns_in_names_are_only_characters(tmp_path: Path) -> None:
    (tmp_path / ".model.0123abcd.part").mkdir()
    put(tmp_path / "m[o]d.l*?")
    put(tmp_path / "mode.")
    assert sorted(os.listdir(tmp_path)) == [".model.0123abcd.part", "m[o]d.l*?", "mode."]


def test_a_temporary_folder_begins_empty_and_is_gone_unless_it_was_renamed(tmp_path: Path) -> None:
    left = tmp_path / "x.part"
    left.mkdir()
    (left / "left").touch()
    with temporary_folder(left, 0o700) as part:
        assert os.listdir(part) == []
        assert part.stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path) == []
    with temporary_folder(left) as part:
        part.rename(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]
