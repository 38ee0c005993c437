"""A finished folder takes its place whole, and only the place of an assembled model."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

import pytest

from seed_runtime import place
from seed_runtime.errors import InputError


def put(target: Path, text: str = "new") -> None:
    with place.folder(target) as part:
        assert part.parent == target.resolve().parent
        assert os.listdir(part) == []
        (part / "model.onnx").write_text(text)
        (part / "model.weights").write_text(text)


def fail(target: Path, error: type[BaseException]) -> None:
    with place.folder(target) as part:
        (part / "model.weights").write_text("half")
        raise error


def text_of(target: Path) -> str:
    assert {entry.name for entry in target.iterdir()} == {"model.onnx", "model.weights"}
    (text,) = {entry.read_text() for entry in target.iterdir()}
    return text


def test_a_new_folder_appears_whole_and_can_be_read_by_others(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with place.folder(target) as part:
        (part / "model.onnx").write_text("new")
        (part / "model.weights").write_text("new")
        assert not target.exists()
    assert text_of(target) == "new"
    assert target.stat().st_mode & 0o777 == 0o755
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


def test_an_assembled_model_and_an_empty_folder_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    put(tmp_path / "model", "old")
    put(tmp_path / "model", "new")
    assert text_of(tmp_path / "model") == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_without_an_exchange_in_the_kernel_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "model", "old")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    put(tmp_path / "model", "new")
    assert text_of(tmp_path / "model") == "new"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("name", ["notes.txt", "model.onnx.bak", ".hidden", "sub"])
def test_a_folder_that_holds_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / name).mkdir()
    with pytest.raises(InputError, match=r"holds something else .* give a new folder") as caught:
        put(target)
    assert caught.value.exit_code == 3
    assert os.listdir(target) == [name]


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


def test_what_a_killed_process_left_is_removed_and_what_another_one_uses_is_not(tmp_path: Path) -> None:
    left, used, other = (tmp_path / name for name in (".model.aaaa.part", ".model.bbbb.part", ".other.cccc.part"))
    for folder in (left, used, other):
        folder.mkdir()
        (folder / "model.weights").write_text("half")
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    put(tmp_path / "model")
    os.close(descriptor)
    assert sorted(os.listdir(tmp_path)) == [".model.bbbb.part", ".other.cccc.part", "model"]
    put(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == [".other.cccc.part", "model"]


def test_names_that_mean_something_in_a_pattern_are_only_names(tmp_path: Path) -> None:
    (tmp_path / ".model.aaaa.part").mkdir()
    put(tmp_path / "m[o]*?")
    assert sorted(os.listdir(tmp_path)) == [".model.aaaa.part", "m[o]*?"]
