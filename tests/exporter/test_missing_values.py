"""Models that take NaN for a missing value, from the model to the running seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_runtime
from seed_exporter.evaluate.run import run_all
from tests.exporter.support.exporting import of_nodes, quick_export


def imputing(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node(
            "Imputer", ["x"], ["f"], domain="ai.onnx.ml", imputed_value_floats=[0.5], replaced_value_float=float("nan")
        ),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return _rows(nodes, rng, ["ai.onnx.ml"])


def checking(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "mean", "x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return _rows(nodes, rng, [])


def _rows(nodes: list[onnx.NodeProto], rng: np.random.Generator, domains: list[str]) -> onnx.ModelProto:
    weights = {"w": rng.standard_normal((32, 48)).astype(np.float32), "mean": np.zeros((1, 32), np.float32)}
    return of_nodes(
        nodes,
        [numpy_helper.from_array(data, name) for name, data in weights.items()],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 48])],
        domains=domains,
    )


@pytest.mark.parametrize("make", [imputing, checking])
def test_nan_is_data_for_a_model_that_handles_it(make: object, rng: np.random.Generator, tmp_path: Path) -> None:
    assert callable(make)
    x = rng.standard_normal((3, 32)).astype(np.float32)
    x[0, 3] = np.nan
    np.savez(tmp_path / "x.npz", x=x)
    quick_export(make(rng), tmp_path / "m.seed", method="lossless", calib=tmp_path / "x.npz")
    with seed_runtime.open(tmp_path / "m.seed").session() as session:
        y = session.run({"x": x})["y"]
        assert np.isfinite(y).all()
        assert np.array_equal(y, run_all(session.folder, [{"x": x}])[0]["y"])
