"""Rows of tables are counted as often as Gather nodes read them, in each part of the inputs."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.calibrate import COVARIANCES, ROW_COUNTS, collect
from seed_exporter.loaders import load
from tests.exporter.support.exporting import of_nodes


def test_rows_of_tables_are_counted_in_each_part(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"], axis=0),
        helper.make_node("Gather", ["table", "always"], ["b"]),
        helper.make_node("Gather", ["others", "ids"], ["c"], axis=1),
        helper.make_node("Identity", ["a"], ["y"]),
    ]
    table = rng.standard_normal((10, 8)).astype(np.float32)
    arrays = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([0, -1]), "always"),
        numpy_helper.from_array(rng.standard_normal((2, 10)).astype(np.float32), "others"),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ybc"]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "s"])
    graph = load(of_nodes(nodes, arrays, [ids], outputs))
    feeds = [{"ids": np.array([[1, 1, -2]])}, {"ids": np.array([[3]])}]
    measured = collect(graph, {ROW_COUNTS, COVARIANCES}, feeds)
    assert measured[COVARIANCES] == {}
    assert {name: counts.tolist() for name, counts in measured[ROW_COUNTS].items()} == {
        "table": [[1, 2, 0, 0, 0, 0, 0, 0, 1, 1], [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]]
    }
    assert collect(graph, {ROW_COUNTS})[ROW_COUNTS] == {}


def test_what_fills_texts_up_does_not_count(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"], axis=0),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
        helper.make_node("Identity", ["attention_mask"], ["m"]),
    ]
    table = rng.standard_normal((10, 8)).astype(np.float32)
    arrays = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
               helper.make_tensor_value_info("m", TensorProto.INT64, None)]  # fmt: skip
    taken = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in ("ids", "attention_mask")]
    graph = load(of_nodes(nodes, arrays, taken, outputs))
    feed = {"ids": np.array([[4, 5, 0, 0], [6, 0, 0, 0]]), "attention_mask": np.array([[1, 1, 0, 0], [1, 0, 0, 0]])}
    measured = collect(graph, {ROW_COUNTS, COVARIANCES}, [feed])
    assert np.flatnonzero(measured[ROW_COUNTS]["table"][0]).tolist() == [4, 5, 6]
    covariance = measured[COVARIANCES]["w"]
    assert covariance.positions.tolist() == [3]
    assert np.allclose(covariance.total()[0], table[4:7].T @ table[4:7] / 3, atol=1e-5)
