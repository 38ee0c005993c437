"""Seeds of any size for tests of transfers: one matrix product, its weights random and stored bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from tests.support.model_seeds import build_model_seed, onnx_model
from tests.support.project import ROOT

EXAMPLE = ROOT / "tests" / "golden" / "example.seed"
"""A seed of 630 bytes with a golden sample."""
EXAMPLE_NAME = "tiny"


def make_seed(
    path: Path,
    *,
    width: int = 16,
    version: int = 1,
    model_id: str = "product",
    working_bytes: int = 0,
) -> Path:
    """Write a seed of `y = x @ w + version`: float32 x of (batch, width). It takes some 3.4 * width ** 2 bytes."""
    weights = {
        "w": np.random.default_rng(version).standard_normal((width, width), dtype=np.float32),
        "b": np.full(width, version, np.float32),
    }
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    model = onnx_model(nodes, {"x": ["batch", width]}, {"y": ["batch", width]}, weights)
    path.write_bytes(build_model_seed(model, model_id=model_id, version=version, least_working_bytes=working_bytes))
    return path
