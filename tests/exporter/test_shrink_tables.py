"""Rows of tables that are the same are stored once, and the graph finds their new places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.report import text
from seed_exporter.shrink.run import shrink
from tests.exporter.support.exporting import quick_export
from tests.exporter.support.onnx_models import tensor
from tests.exporter.support.pruned_models import run, whole

ROWS, WIDTH, LEFT = 500, 32, 60


def table(rng: np.random.Generator, dead_row: np.ndarray | float = 0.0) -> np.ndarray:
    rows = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    rows[rng.permutation(ROWS)[LEFT:]] = dead_row
    return rows


def model(rows: np.ndarray, *, opset: int = 17, nodes: tuple[onnx.NodeProto, ...] = (), axis: int = 0) -> Graph:
    """y: the rows of the table that the integers in ids select."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"], axis=axis), *nodes],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        + [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes],
        [tensor(rows, "table")],
    )
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


@pytest.mark.parametrize("dead_row", [0.0, -0.0, np.arange(WIDTH, dtype=np.float32)])
def test_a_table_keeps_the_rows_that_differ_and_the_repeated_one_once(dead_row: np.ndarray | float):
    rows = table(np.random.default_rng(1), dead_row)
    before = model(rows)
    after = shrink(before)
    assert after.weights["table"].shape == (LEFT + 1, WIDTH)
    ids = {"ids": np.concatenate([np.arange(ROWS), -np.arange(ROWS)]).reshape(2, -1)}
    found = run(after, ids)[0]
    assert found.tobytes() == run(before, ids)[0].tobytes()
    assert shrink(after) is after


def test_a_seed_of_a_short_table_says_what_was_saved(tmp_path: Path):
    result = quick_export(whole(model(table(np.random.default_rng(1)))), tmp_path / "s", method="lossless", shrink=True)
    left = (LEFT + 1) * WIDTH  # the mask is so short that it stays in the graph
    assert f"note: stored repeated rows once, {ROWS * WIDTH / left:.1f} times fewer weights" in text.summary(result)
    assert result.outputs["y"].identical


def test_two_nodes_select_from_one_short_table():
    other = helper.make_node("Gather", ["table", "ids"], ["z"])
    before = model(table(np.random.default_rng(1)), nodes=(other,))
    after = shrink(before)
    assert after.weights["table"].shape == (LEFT + 1, WIDTH)
    ids = {"ids": np.arange(ROWS).reshape(5, -1)}
    for one, two in zip(run(before, ids), run(after, ids), strict=True):
        assert np.array_equal(one, two)


def test_a_table_that_is_also_multiplied_stays():
    tied = helper.make_node("MatMul", ["y", "table"], ["z"])
    rows = np.zeros((WIDTH, WIDTH), np.float32)
    graph = model(rows, nodes=(tied,))
    assert shrink(graph).weights["table"].shape == (WIDTH, WIDTH)


@pytest.mark.parametrize("case", ["few rows are the same", "old opset", "columns are selected"])
def test_a_table_stays_where_that_would_save_little_or_cannot_be(case: str):
    rows = table(np.random.default_rng(1))
    if case == "few rows are the same":
        rows = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
        rows[: ROWS // 10] = 0
    graph = model(rows, opset=10 if case == "old opset" else 17, axis=int(case == "columns are selected"))
    assert shrink(graph) is graph
