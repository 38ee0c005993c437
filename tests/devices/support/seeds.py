"""Seeds of any size for tests of transfers: one matrix product, its weights random and stored bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from seed_runtime import generator
from seed_runtime.golden import Recipe
from tests.support.deltas import delta_on
from tests.support.model_seeds import F32, build_model_seed, onnx_model
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
    golden: str = "none",
    burden: int = 0,
    matrix: int | None = None,
    bias: int | None = None,
) -> Path:
    """Write a seed of `y = x @ w + version`: float32 x of (batch, width). It takes some 3.4 * width ** 2 bytes.

    Args:
        matrix: the version whose `w` it has; its own if None.
        bias: what it adds; its version if None.
        golden: its golden sample: "right", "wrong" or "none".
        burden: how many numbers it adds up for nothing at each inference, which takes time.
    """
    weights = {
        "w": np.random.default_rng(version if matrix is None else matrix).standard_normal(
            (width, width), dtype=np.float32
        ),
        "b": np.full(width, version if bias is None else bias, np.float32),
    }
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    if burden:
        weights["zero"] = np.zeros(1, np.float32)
        nodes[1] = helper.make_node("Add", ["m", "b"], ["sum"])
        nodes += [
            # Of what depends on the input nothing is computed in advance.
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
            helper.make_node("Constant", [], ["many"], value=numpy_helper.from_array(np.array([burden], np.int64))),
            helper.make_node("Expand", ["nothing", "many"], ["all"]),
            helper.make_node("ReduceSum", ["all"], ["still"], keepdims=0),
            helper.make_node("Add", ["sum", "still"], ["y"]),
        ]
    model = onnx_model(nodes, {"x": ["batch", width]}, {"y": ["batch", width]}, weights)
    recipes = () if golden == "none" else (Recipe(generator.NORMAL, F32, (1, width), 0.0, 1.0),)
    data = build_model_seed(
        model,
        model_id=model_id,
        version=version,
        least_working_bytes=working_bytes,
        recipes=recipes,
        golden_error=1.0 if golden == "wrong" else 0.0,
    )
    path.write_bytes(data)
    return path


def make_delta(
    path: Path, *below: Path, version: int, width: int = 16, golden: str = "right", wide: bool = False
) -> Path:
    """Write a version of `make_seed`'s model as what differs from another one, of some 300 bytes.

    Args:
        path: the new seed.
        below: what it stands on, the whole seed first.
        version: of the model.
        width: of the seeds below.
        golden: its golden sample: "right", "wrong" or "none".
        wide: whether the matrix differs and not only the bias, which takes about as many bytes as a whole seed.
    """
    recipes = () if golden == "none" else (Recipe(generator.NORMAL, F32, (1, width), 0.0, 1.0),)
    data = delta_on(
        *(each.read_bytes() for each in below),
        version=version,
        changed=0 if wide else 1,
        recipes=recipes,
        golden_error=1.0 if golden == "wrong" else 0.0,
    )
    path.write_bytes(data)
    return path
