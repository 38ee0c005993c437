"""Batch norms folded into convolutions: the same outputs, fewer numbers, and nothing that isn't constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_runtime
from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.run import run_all
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.model import Graph
from tests.exporter.support.exporting import quick_export

CHANNELS = 24


def model(
    op: str = "Conv",
    *,
    group: int = 1,
    bias: bool = True,
    training: int = 0,
    read_twice: bool = False,
    channels: int = CHANNELS,
) -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    per_group = channels // group
    tensors = {
        "w": rng.normal(0, 0.3, (channels, per_group, 3, 3)),
        "scale": rng.lognormal(0, 1, channels),
        "offset": rng.normal(0, 1, channels),
        "mean": rng.normal(0, 1, channels),
        "variance": rng.lognormal(0, 1, channels),
    }
    if bias:
        tensors["b"] = rng.normal(0, 1, channels)
    read = ["x", "w", "b"] if bias else ["x", "w"]
    outputs = ["y", "", ""] if not training else ["y", "m", "v"]
    nodes = [
        helper.make_node(op, read, ["c"], group=group, pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization",
            ["c", "scale", "offset", "mean", "variance"],
            outputs[: 3 if training else 1],
            epsilon=0.01,
            training_mode=training,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 8, 8])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (["y", "c"] if read_twice else ["y"])
        ],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def outputs(graph: Graph, folder: Path) -> np.ndarray:
    folder.mkdir()
    write_model_files(graph, folder)
    shape = (2, CHANNELS, 8, 8)
    x = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    return run_all(folder, [{"x": x}], "fast", 1)[0]["y"]


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("group", [1, 4, CHANNELS])
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_model_answers_as_before(op: str, group: int, bias: bool, tmp_path: Path) -> None:
    graph = loaders.load(model(op, group=group, bias=bias))
    folded = fold_batch_norms(graph)
    assert [node.op_type for node in folded.model.graph.node] == [op]
    assert folded.parameters == graph.parameters - (4 if bias else 3) * CHANNELS
    assert folded.weights["w"].uses[0].op == op
    before, after = outputs(graph, tmp_path / "a"), outputs(folded, tmp_path / "b")
    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()


def test_few_channels_stay_inside_the_model() -> None:
    folded = fold_batch_norms(loaders.load(model(channels=8)))
    assert [node.op_type for node in folded.model.graph.node] == ["Conv"]
    assert list(folded.weights) == ["w"]


@pytest.mark.parametrize("kept", [{"training": 1}, {"read_twice": True}])
def test_a_norm_that_trains_or_whose_input_is_read_elsewhere_stays(kept: dict[str, bool]) -> None:
    graph = loaders.load(model(**kept))
    assert fold_batch_norms(graph) is graph


def test_a_negative_variance_is_left_to_the_runtime() -> None:
    broken = model()
    variance = next(tensor for tensor in broken.graph.initializer if tensor.name == "variance")
    variance.CopyFrom(numpy_helper.from_array(np.full(CHANNELS, -1.0, np.float32), "variance"))
    graph = loaders.load(broken)
    assert fold_batch_norms(graph) is graph


def test_the_default_folds_and_lossless_keeps_every_norm(tmp_path: Path) -> None:
    def operators(method: str) -> list[str]:
        made = quick_export(model(), tmp_path / f"{method}.seed", method=method)
        seed_runtime.open(made.path).assemble(tmp_path / method)
        assembled = onnx.load(tmp_path / method / "model.onnx", load_external_data=False)
        return [node.op_type for node in assembled.graph.node]

    assert operators("grid") == ["Conv"]
    assert operators("lossless") == ["Conv", "BatchNormalization"]
