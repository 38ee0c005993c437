"""`--shrink`: the seed holds the smaller model, and all figures refer to the original."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import seed_exporter.stages.shrinking as stage
import seed_runtime
from seed_exporter.graph.edit import with_graph
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.report import page, text
from seed_exporter.shrink.cost import multiply_adds, shrinkage
from seed_exporter.shrink.run import shrink
from tests.exporter.support.command import Ran
from tests.exporter.support.exporting import dense, quick_export
from tests.exporter.support.pruned_models import Builder

WIDE, LEFT = 200, 50


def pruned() -> onnx.ModelProto:
    """16 inputs, 200 neurons of which 50 are left, 10 outputs; the biases of dead neurons aren't 0."""
    rng = np.random.default_rng(4)
    up = rng.standard_normal((16, WIDE)) / 4
    up[:, rng.permutation(WIDE)[LEFT:]] = 0
    return dense([up, rng.standard_normal((WIDE, 10)) / 8], [rng.normal(0.2, 0.1, WIDE), rng.normal(0, 0.1, 10)])


def test_a_shrunk_seed_is_smaller_and_answers_as_the_original_does(tmp_path: Path):
    model = pruned()
    result = quick_export(model, tmp_path / "s.seed", method="lossless", shrink=True)
    whole = quick_export(model, tmp_path / "w.seed", method="lossless")
    assert result.bytes < 0.6 * whole.bytes
    assert {name: weight.shape for name, weight in result.graph.weights.items() if weight.count > 64} == {
        "w0": (16, LEFT),
        "w1": (LEFT, 10),
    }
    assert result.outputs["y"].relative < 1e-6
    assert seed_runtime.open(tmp_path / "s.seed").header.model.source_bytes == result.seed.header.model.source_bytes


def test_ratio_and_parameters_refer_to_the_original(tmp_path: Path):
    result = quick_export(pruned(), tmp_path / "s.seed", method="lossless", shrink=True)
    assert result.parameters == 16 * WIDE + WIDE + 10 * WIDE + 10 - 10  # the last bias stays in the graph
    assert result.ratio == pytest.approx(4 * result.parameters / result.bytes)


def test_what_was_cut_is_said_and_in_the_json(tmp_path: Path):
    result = quick_export(pruned(), tmp_path / "s.seed", method="lossless", shrink=True)
    assert "note: cut 150 of 210 channels, 4.0 times fewer weights, 4.0 times fewer multiply-adds" in text.summary(
        result
    )
    assert result.as_json()["shrunk"] == {
        "channels": [210, 60],
        "weights": [27 * WIDE, 27 * LEFT],
        "multiply_adds": [26 * WIDE, 26 * LEFT],
    }


@pytest.mark.slow
def test_the_command_shrinks(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    onnx.save(pruned(), tmp_path / "m.onnx")
    ran = Ran(capfd, tmp_path / "m.onnx", "-o", tmp_path / "m.seed", "--shrink", "--method", "lossless", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["shrunk"]["channels"] == [210, 60]


def test_the_page_lists_the_channels_of_each_layer(tmp_path: Path):
    result = quick_export(pruned(), tmp_path / "s.seed", method="lossless", shrink=True)
    page.write(tmp_path / "r.html", result)
    assert "w0<td class=n>200<td class=n>50" in (tmp_path / "r.html").read_text()
    without = quick_export(pruned(), tmp_path / "w.seed", method="lossless")
    page.write(tmp_path / "w.html", without)
    assert "--shrink" not in (tmp_path / "w.html").read_text()


def test_a_model_without_dead_channels_stays_and_a_note_says_so(tmp_path: Path):
    rng = np.random.default_rng(4)
    model = dense([rng.standard_normal((16, 40))], [rng.standard_normal(40)])
    result = quick_export(model, tmp_path / "s.seed", method="lossless", shrink=True)
    assert result.shrinkage is None
    assert any("no channel is dead" in note for note in result.notes)


@pytest.mark.parametrize("fault", ["another function", "no function"])
def test_a_model_that_would_change_is_left_as_it_is(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(graph: Graph) -> Graph:
        smaller = shrink(graph).model.graph
        op = "Tanh" if fault == "another function" else "NoSuchOperator"
        for node in (edited := copy_of(smaller)).node:
            node.op_type = op if node.op_type == "Relu" else node.op_type
        return with_graph(shrink(graph), edited)

    monkeypatch.setattr(stage, "without_dead_channels", wrong)
    result = quick_export(pruned(), tmp_path / "s.seed", method="lossless", shrink=True)
    assert result.graph.weights["w0"].shape == (16, WIDE)
    assert result.outputs["y"].relative == 0
    note = next(note for note in result.notes if "--shrink has left the model as it is" in note)
    assert ("error of" if fault == "another function" else "can't be run") in note


@pytest.mark.slow
def test_a_shrunk_seed_keeps_a_size_that_was_asked_for(tmp_path: Path):
    result = quick_export(pruned(), tmp_path / "s.seed", shrink=True, size=1500, effort=1)
    assert result.goal_met
    assert result.shrinkage is not None


def test_multiply_adds_are_counted_at_the_sizes_of_a_call():
    b = Builder(x=["n", 3, "h", "w"])
    hidden = b.conv("x", "a", 8, 3, 3, dead=range(4), strides=[2, 2])
    hidden = b.node("ConvTranspose", hidden, b.weight("b", 8, 1, 2, 2), group=8, strides=[2, 2])
    flat = b.node("Flatten", b.node("GlobalAveragePool", hidden))
    graph = b.graph(b.node("Gemm", flat, b.weight("fc", 5, 8), transB=1))
    sizes = {"x": (2, 3, 8, 8)}
    assert multiply_adds(graph, sizes) == 2 * (8 * 16 * 27 + 8 * 16 * 4 + 5 * 8)
    assert multiply_adds(graph, {}) is None
    found = shrinkage(graph, shrink(graph), sizes)
    assert found.multiply_adds == (2 * (8 * 16 * 27 + 8 * 16 * 4 + 5 * 8), 2 * (4 * 16 * 27 + 4 * 16 * 4 + 5 * 4))
    assert found.channels == (21, 13)


def test_multiply_adds_are_counted_where_the_model_states_sizes_in_between():
    b = Builder(x=["n", 3, "h", 8])
    hidden = b.conv("x", "a", 8, 3)
    shape = b.node("Concat", b.node("Shape", "x", end=1), b.constant([8, -1]), axis=0)
    graph = b.graph(b.node("MatMul", b.node("Reshape", hidden, shape), b.weight("w", 64, 5)))
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    reshaped = next(node.output[0] for node in model.graph.node if node.op_type == "Reshape")
    model.graph.value_info.append(helper.make_tensor_value_info(reshaped, TensorProto.FLOAT, ["n", 8, 64]))
    sizes = {"x": (2, 3, 8, 8)}
    assert multiply_adds(with_graph(graph, model.graph), sizes) == 2 * (8 * 64 * 3 + 8 * 64 * 5)
