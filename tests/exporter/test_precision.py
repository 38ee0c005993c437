"""Scores of a network that is healed in mixed precision. Skipped without torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import loaders

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
from seed_exporter.heal.interpreter import Interpreter  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds

WIDE, NARROW = 1 + 2**-7, 2**-7
"""A number that bf16 has, and the last place of its significand."""


def network(*nodes: onnx.NodeProto, weights: dict[str, list[list[float]]]) -> Interpreter:
    graph = helper.make_graph(
        list(nodes),
        "scores",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.array(rows, np.float32), name) for name, rows in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Interpreter(loaders.load(model))


def scores(interpreter: Interpreter, x: list[float]) -> list[float]:
    with torch.autocast("cpu", torch.bfloat16):
        found = interpreter.run({"x": np.array([x], np.float32)})["scores"]
    assert found.dtype == torch.float32
    return found.reshape(-1).tolist()


def test_scores_far_from_zero_keep_what_tells_classes_apart() -> None:
    last = network(
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["scores"]),
        weights={"w": [[-19, -19], [1, 2]], "b": [[0.25, 0.25]]},
    )
    # bf16 has multiples of .125 here.
    assert scores(last, [1, 0.03125]) == [-19 + 0.03125 + 0.25, -19 + 0.0625 + 0.25]


def test_products_before_the_last_one_are_computed_in_bf16() -> None:
    two = network(
        helper.make_node("Gemm", ["x", "first"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "last"], ["scores"]),
        weights={"first": [[1, 0], [1, 1]], "last": [[1, 0], [0, 1]]},
    )
    # 1 + 2^-8 lies halfway between two numbers of bf16, and is rounded to the even one.
    assert scores(two, [WIDE, NARROW / 2]) == [1 + 2**-6, NARROW / 2]
