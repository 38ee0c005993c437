"""The Python API from end to end: export, open, run under a memory limit, and the same answer within the error told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import seed_exporter
import seed_runtime
from seed_runtime.errors import InputError, MemoryBudgetError
from tests.exporter.support.exporting import layers, quick_export

LIMIT = 200_000_000


def original(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs.astype(np.float64)))


@pytest.mark.parametrize("options", [{}, {"target": 8.0}, {"method": "moments"}, {"method": "lossless"}])
def test_a_session_answers_within_the_error_that_was_reported(
    options: dict, tmp_path: Path, rng: np.random.Generator
) -> None:
    model, x = layers(rng, 48, 96, 32), rng.standard_normal((1, 48)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    result = quick_export(model, tmp_path / "model.seed", calib=tmp_path / "x.npz", **options)
    with seed_runtime.open(tmp_path / "model.seed").session() as session:
        ours = session.run({"x": x})["y"]
    assert relative(ours, original(model, x)) == pytest.approx(result.outputs["y"].relative, rel=1e-3, abs=1e-6)
    assert result.outputs["y"].identical == (options.get("method") == "lossless")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory that plans are made of")
def test_a_session_under_a_memory_limit_equals_the_original(tmp_path: Path, rng: np.random.Generator) -> None:
    # Whichever of the two samples outputs are judged on, the error is that of both.
    model, x = layers(rng, 48, 96, 32), np.repeat(rng.standard_normal((1, 48)).astype(np.float32), 2, axis=0)
    np.savez(tmp_path / "x.npz", x=x)
    path = tmp_path / "model.seed"
    result = seed_exporter.export(model, output=path, options=seed_exporter.Options(calib=tmp_path / "x.npz"))
    seed = seed_runtime.open(path)
    # This process holds pytest, NumPy and more: the limit is for all of it.
    needed = seed.plan_session({"x:0": 2}).needed_bytes
    assert needed is not None
    with seed.session(max_memory=max(LIMIT, 2 * needed), feeds={"x": x}) as session:
        assert relative(session.run({"x": x})["y"], original(model, x)) <= result.outputs["y"].relative * 1.001
        assert session.verify().ok
        with pytest.raises(InputError, match="x: float32"):
            session.run({"x": x.astype(np.float64)})
    with pytest.raises(MemoryBudgetError):
        seed.session(max_memory=1_000_000)


def test_the_package_offers_what_its_first_lines_show(tmp_path: Path, rng: np.random.Generator) -> None:
    onnx.save(layers(rng, 24, 40), tmp_path / "model.onnx")
    result = quick_export(str(tmp_path / "model.onnx"), tmp_path / "model.seed")
    assert isinstance(result, seed_exporter.Result)
    assert result.path == tmp_path / "model.seed"
    assert seed_runtime.open(result.path).header.model.model_id == "model"
