"""Only an empty folder and an assembled model are replaced by an assembled model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seed_runtime.assembly.folder import model_folder
from seed_runtime.errors import InputError
from tests.support import onnx_bytes


def put(target: Path, text: str = "new") -> None:
    with model_folder(target) as part:
        (part / "model.onnx").write_bytes(onnx_bytes.model())
        (part / "model.weights").write_text(text)


def text_of(target: Path) -> str:
    """Return the weights of a folder that holds a model and nothing else."""
    assert {entry.name for entry in target.iterdir()} == {"model.onnx", "model.weights"}
    return (target / "model.weights").read_text()


def test_an_assembled_model_and_an_empty_folder_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    put(tmp_path / "model", "old")
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


@pytest.mark.parametrize(
    "files",
    [
        {"model.onnx": onnx_bytes.model()},
        {"model.weights": b"w"},
        {"model.onnx": b"a user's own", "model.weights": b"w"},
        {"model.onnx": b"", "model.weights": b"w"},
        {"model.onnx": onnx_bytes.model(), "model.weights": b"w", "labels.txt": b"cat"},
    ],
    ids=["graph alone", "weights alone", "no skeleton", "empty", "one more"],
)
def test_a_folder_with_a_model_that_is_not_ours_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    target = tmp_path / "model"
    target.mkdir()
    for name, content in files.items():
        (target / name).write_bytes(content)
    with pytest.raises(InputError, match="give a new folder, or move what is there"):
        put(target)
    assert {entry.name: entry.read_bytes() for entry in target.iterdir()} == files
