"""Sizes of models whose numbers are in attributes: they are compared with the whole model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import seed_runtime
from seed_exporter import cli
from seed_exporter.graph.source_size import source_size
from seed_exporter.loaders import load
from seed_exporter.report import text
from tests.exporter.support.exporting import quick_export
from tests.exporter.support.onnx_models import info, make, matmul_chain
from tests.support.seed_run import result as shown
from tests.support.seed_run import seed_run


def forest(trees: int = 20, depth: int = 5) -> onnx.ModelProto:
    """Make a classifier of complete trees, whose numbers are lists in the attributes of one node."""
    rng = np.random.default_rng(7)
    count, first_leaf = 2 ** (depth + 1) - 1, 2**depth - 1
    node = np.tile(np.arange(count), trees)
    tree = np.repeat(np.arange(trees), count)
    branch = node < first_leaf
    made = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        domain="ai.onnx.ml",
        nodes_treeids=tree.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_featureids=np.where(branch, rng.integers(8, size=node.size), 0).tolist(),
        nodes_modes=["BRANCH_LEQ" if each else "LEAF" for each in branch],
        nodes_truenodeids=np.where(branch, 2 * node + 1, 0).tolist(),
        nodes_falsenodeids=np.where(branch, 2 * node + 2, 0).tolist(),
        nodes_values=np.where(branch, rng.standard_normal(node.size), 0).astype(np.float32).tolist(),
        class_treeids=tree[~branch].tolist(),
        class_nodeids=node[~branch].tolist(),
        class_ids=rng.integers(3, size=(~branch).sum()).tolist(),
        class_weights=rng.random((~branch).sum()).astype(np.float32).tolist(),
        classlabels_int64s=[0, 1, 2],
        post_transform="NONE",
    )
    outputs = [info("label", ("n",), TensorProto.INT64), info("p", ("n", 3))]
    return make([made], inputs=[info("x", ("n", 8))], outputs=outputs, domains=["ai.onnx.ml"])


def test_a_forest_is_compared_with_its_whole_model(tmp_path: Path) -> None:
    model = forest()
    path = tmp_path / "m.seed"
    result = quick_export(model, path)
    assert result.ratio == pytest.approx(model.ByteSize() / path.stat().st_size, rel=0.02)
    assert result.ratio > 1
    assert result.parameters == 7 * 20 * 63 + 4 * 20 * 32
    summary = text.summary(result)
    first, *_ = summary.splitlines()
    assert "of weights" not in summary
    assert f"for a model of {text.size(result.seed.header.model.source_bytes)}, {result.ratio:.2f}x smaller, " in first
    assert first.endswith("bits per number (0.01 M numbers, most in attributes of its nodes)")
    assert "note: less than" not in summary
    found = shown(path, "--inspect")
    assert (found["parameters"], found["ratio"]) == (result.parameters, pytest.approx(result.ratio, abs=1e-3))
    assert seed_runtime.open(path).header.model.source_bytes == result.seed.header.model.source_bytes


def test_a_goal_that_a_forest_misses_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(forest(), tmp_path / "model.onnx")
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(tmp_path / "model.onnx"), "-o", str(tmp_path / "m.seed"), "--target", "100x"])
    assert stopped.value.code == 15
    assert "ask for less: what is in attributes of nodes is kept bit by bit" in capsys.readouterr().err


def test_a_model_without_numbers_has_no_bits_for_each(tmp_path: Path) -> None:
    result = quick_export(make([helper.make_node("Relu", ["x"], ["y"])]), tmp_path / "m.seed")
    assert "bits per" not in text.summary(result)
    assert json.loads(json.dumps(result.as_json()))["bits_per_weight"] is None
    assert shown(tmp_path / "m.seed", "--inspect")["bits_per_weight"] is None
    assert "weights  none\n" in seed_run(tmp_path / "m.seed", "--inspect").stdout.decode()


def test_weights_in_tensors_are_compared_with_as_before() -> None:
    graph = load(matmul_chain())
    assert source_size(graph).bytes == graph.distinct_bytes
    assert source_size(graph).numbers == graph.parameters
    assert not source_size(graph).in_attributes
