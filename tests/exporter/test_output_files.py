"""Where `seed-export` writes to: never over what it reads, and into what is no file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import seed_runtime
from seed_exporter.evaluate import footprint
from tests.exporter.support.exporting import layers
from tests.exporter.test_cli import Ran, one_object, refused


@pytest.fixture(autouse=True)
def without_measured_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "measure", lambda *_, **__: None)


@pytest.mark.parametrize("flag", ["-o", "--report"])
def test_the_models_external_data_is_never_replaced(
    flag: str, tmp_path: Path, capfd: Any, rng: np.random.Generator
) -> None:
    path, data = tmp_path / "split.onnx", tmp_path / "split.data"
    onnx.save(layers(rng, 48, 96), path, save_as_external_data=True, location=data.name)
    (tmp_path / "link").symlink_to(data)
    before = data.read_bytes()
    for name in (data, tmp_path / "link"):
        arguments = [path, "-o", name] if flag == "-o" else [path, "-o", tmp_path / "model.seed", flag, name]
        error = refused(capfd, 2, *arguments)
        what = "a seed" if flag == "-o" else "a report"
        assert f"exists and is not {what}, so it isn't replaced; name another file with {flag}" in error
    assert data.read_bytes() == before


def test_the_longest_name_works_and_a_pipe_is_written_to(tmp_path: Path, capfd: Any, rng: np.random.Generator) -> None:
    model, longest, fifo = tmp_path / "model.onnx", tmp_path / ("m" * 255), tmp_path / "fifo"
    onnx.save(layers(rng, 48, 96), model)
    assert Ran(capfd, model, "-o", longest).code == 0
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        ran = Ran(capfd, model, "-o", fifo, "--report", "/dev/null", "--json")
        assert reader.stdout is not None
        assert reader.stdout.read() == longest.read_bytes()
    assert ran.code == 0, ran.err
    assert one_object(ran.out)["digest"] == seed_runtime.open(longest).digest.hex()
    assert fifo.is_fifo()
