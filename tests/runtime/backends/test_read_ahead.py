"""Reading a backend's library ahead: nothing is imported, and what can't be read is left to the import."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from seed_runtime import backends


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the system is asked to read, in a process that has not imported the library."""
    names: list[str] = []
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, *_: names.append(os.readlink(f"/proc/self/fd/{file}")), raising=False
    )
    return names


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks up open files in /proc")
def test_the_extension_module_is_read_ahead_and_not_imported(asked: list[str]) -> None:
    backends.get("onnxruntime").read_ahead()
    assert [os.path.basename(name).partition(".")[0] for name in asked] == ["onnxruntime_pybind11_state"]
    assert "onnxruntime" not in sys.modules


def test_a_library_that_is_imported_already_is_not_read_again(asked: list[str]) -> None:
    sys.modules["onnxruntime"] = sys
    try:
        backends.get("onnxruntime").read_ahead()
    finally:
        del sys.modules["onnxruntime"]
    assert not asked


def test_a_library_that_is_missing_is_left_to_the_import(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    backends.get("onnxruntime").read_ahead()
    assert not asked


def test_a_system_that_takes_no_advice_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    backends.get("onnxruntime").read_ahead()
