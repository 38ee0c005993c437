"""Which loader a source gets, and what no loader knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from seed_exporter.loaders import load
from seed_runtime.errors import UsageError


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
