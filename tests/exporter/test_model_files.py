"""Graphs as plain files: valid ONNX, with the weights that the caller wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.loaders import load
from tests.exporter.support.onnx_models import info, matmul_chain, run


def test_a_rebuilt_model_passes_the_onnx_checker(tmp_path: Path):
    model = matmul_chain()
    model.graph.output[0].CopyFrom(info("y", ("n", 5)))
    onnx.checker.check_model(str(write_model_files(load(model), tmp_path)), full_check=True)


def test_other_weights_can_be_put_in_by_name_or_one_at_a_time(tmp_path: Path):
    graph = load(matmul_chain())
    zeros = {name: np.zeros(weight.shape, np.float32) for name, weight in graph.weights.items()}
    feeds = {"x": np.ones((2, 16), np.float32)}
    assert not run(write_model_files(graph, tmp_path, zeros), feeds)[0].any()
    assert not run(write_model_files(graph, tmp_path, lambda weight: zeros[weight.name]), feeds)[0].any()
    assert run(write_model_files(graph, tmp_path), feeds)[0].any()
    with pytest.raises(ValueError, match="takes"):
        write_model_files(graph, tmp_path, lambda weight: np.zeros(3, np.float32))
