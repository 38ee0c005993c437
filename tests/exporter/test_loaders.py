"""Which loader a source gets, and what no loader knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError, UsageError
from tests.support.wrong_files import ARCHIVE, PAGES, POINTER


def test_what_is_no_model_at_all_is_a_mistake_in_use(tmp_path: Path):
    for source in ("nowhere.onnx", tmp_path / "model.bin", "model", 3, None):
        with pytest.raises(UsageError):
            load(source)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    from seed_exporter import loaders

    def missing(name: str):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(loaders.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'seed-runtime\[export\]'"):
        load("model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_git_lfs_pointer_names_the_command_that_fetches_the_model(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(UnsupportedError, match=rf"{name} is a Git LFS pointer .*; fetch the file: git lfs pull"):
        load(tmp_path / name)


@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_that_was_saved_as_a_model_is_called_one(tmp_path: Path, page: bytes):
    (tmp_path / "model.onnx").write_bytes(page)
    with pytest.raises(UnsupportedError, match="is a web page instead of the file itself"):
        load(tmp_path / "model.onnx")


def test_a_packed_model_is_called_an_archive(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(ARCHIVE)
    with pytest.raises(UnsupportedError, match="is an archive; unpack it"):
        load(tmp_path / "model.onnx")
