"""Inputs that are generated for lack of real ones excite the model about as real ones would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.calibrate import batch_norms, excite
from seed_exporter.calibrate.excite import picture, written
from seed_exporter.evaluate import inputs
from seed_exporter.evaluate.samples import Samples
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.errors import InputError
from tests.exporter.support.exporting import of_nodes, quick_export
from tests.exporter.support.gradients import session

X = TensorSpec("x", "float32", ("batch", 3, 12, 12))


def network(rng: np.random.Generator, mean: float = 0.3, scale: float = 0.8) -> onnx.ModelProto:
    """Convolution, batch norm, ReLU, twice, whose statistics are those of inputs of this mean and scale."""
    x = mean + scale * rng.standard_normal((64, 3, 12, 12)).astype(np.float32)
    arrays: dict[str, np.ndarray] = {}
    nodes = []
    value, channels = "x", 3
    for layer in range(2):
        arrays[f"w{layer}"] = rng.standard_normal((8, channels, 3, 3)).astype(np.float32) / 4
        arrays |= {f"scale{layer}": np.ones(8, np.float32), f"shift{layer}": np.zeros(8, np.float32)}
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        seen = session(of_nodes(nodes, _tensors(arrays), [_float("x", ["n", 3, 12, 12])], [_float(f"c{layer}", None)]))
        found = seen.run(None, {"x": x})[0]
        arrays |= {f"mean{layer}": found.mean((0, 2, 3)), f"variance{layer}": found.var((0, 2, 3))}
        parts = ["scale", "shift", "mean", "variance"]
        nodes.append(
            helper.make_node("BatchNormalization", [f"c{layer}", *(f"{part}{layer}" for part in parts)], [f"b{layer}"])
        )
        nodes.append(helper.make_node("Relu", [f"b{layer}"], [f"r{layer}"]))
        value, channels = f"r{layer}", 8
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"]))
    return of_nodes(nodes, _tensors(arrays), [_float("x", ["batch", 3, 12, 12])], [_float("y", None)])


def distances(graph: Graph, feeds: list[Feeds]) -> float:
    """Mean squared distance of the statistics at batch norms from the stored ones, in standard deviations."""
    norms = batch_norms.batch_norms(graph)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in model.graph.initializer:
        if tensor.name in graph.weights:
            tensor.CopyFrom(numpy_helper.from_array(np.array(graph.weights[tensor.name].data), tensor.name))
    model.graph.output.extend(onnx.ValueInfoProto(name=norm.value) for norm in norms)
    running = session(model)
    x = np.concatenate([each["x"] for each in feeds])
    found = running.run([norm.value for norm in norms], {"x": x})
    return float(
        np.mean(
            [
                np.square((each.mean((0, 2, 3)) - norm.means) / np.sqrt(norm.variances)).mean()
                + np.square(np.log(each.std((0, 2, 3)) / np.sqrt(norm.variances))).mean()
                for norm, each in zip(norms, found, strict=True)
            ]
        )
    )


def excited(graph: Graph, folder: Path, *specs: TensorSpec) -> Samples:
    running = session(graph)

    def run(feeds: Feeds) -> Mapping[str, Array]:
        try:
            return dict(zip([output.name for output in running.get_outputs()], running.run(None, feeds), strict=True))
        except Exception as error:
            raise InputError(str(error)) from error

    return excite(graph, folder, 1, specs, inputs.find_recipes(graph, specs, run), run)


@pytest.mark.parametrize("level", [(0.3, 0.8), (110.0, 70.0)])
def test_pictures_are_changed_until_batch_norms_see_what_they_saw_in_training(
    level: tuple[float, float], rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load(network(rng, *level))
    begun = [{"x": picture((1, 3, 12, 12), number)} for number in range(16)]
    matched = batch_norms.match(graph, begun, ["x"], tmp_path, 1)
    assert matched is not None
    assert [each["x"].shape for each in matched] == [(1, 3, 12, 12)] * 16
    before = distances(graph, begun)
    assert before > 0.3
    assert distances(graph, matched) < 0.02 * before
    # Statistics are those of all inputs, however few are run at once.
    monkeypatch.setattr(batch_norms, "MEMORY_MAX", 1)
    alone = batch_norms.match(graph, begun, ["x"], tmp_path, 1)
    assert alone is not None
    assert distances(graph, alone) < 0.02 * before
    monkeypatch.setattr(batch_norms, "WORK_MAX", 1)
    assert batch_norms.match(graph, begun, ["x"], tmp_path, 1) is None
    monkeypatch.undo()
    found = excited(graph, tmp_path, X)
    assert (len(found.judged), len(found.calibration)) == (8, 16)
    assert found.note == (
        "random smooth pictures, changed until batch norms saw what they saw in training; real inputs say more: "
        "--calib x.npz"
    )
    assert distances(graph, [*found.judged, *found.calibration]) < 0.02 * before


def test_an_operator_without_gradient_leaves_smooth_pictures(rng: np.random.Generator, tmp_path: Path) -> None:
    node = helper.make_node("Det", ["x"], ["d"])
    model = network(rng)
    model.graph.node[0].input[0] = "z"
    ones = numpy_helper.from_array(np.ones((1, 3, 12, 12), np.float32), "ones")
    model.graph.initializer.append(ones)
    model.graph.node.insert(0, helper.make_node("Mul", ["e", "x"], ["z"]))
    model.graph.node.insert(0, helper.make_node("Unsqueeze", ["d", "axes"], ["e"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    model.graph.node.insert(0, node)
    found = excited(load(model), tmp_path, X)
    assert found.note.startswith("random smooth pictures; ")


@pytest.mark.parametrize(("shape", "channel_axis"), [((1, 3, 64, 48), 1), ((1, 64, 48, 3), 3)])
def test_pictures_are_smooth_and_their_channels_alike(shape: tuple[int, ...], channel_axis: int) -> None:
    made = np.moveaxis(picture(shape, 1), channel_axis, 0)[:, 0]
    assert made.shape == (3, 64, 48)
    steps = np.diff(made, axis=1).std() / made.std()
    assert steps < 0.7  # of independent pixels it is 1.41
    assert np.corrcoef(made.reshape(3, -1))[0, 1] > 0.5
    assert made.std() == pytest.approx(0.5, rel=0.01)
    assert np.array_equal(picture(shape, 1), picture(shape, 1))


CHAIN = np.array([[0, 9, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 9, 0], [9, 0, 0, 0, 0], [5, 5, 5, 5, 5]], np.float32) * 3


def follows(feeds: Feeds) -> dict[str, Array]:
    """A language model that knows one sequence: 0, 1, 2, 3, 0 and so on."""
    return {"logits": CHAIN[feeds["ids"]]}


def test_a_language_model_writes_its_own_texts() -> None:
    begun = [{"ids": np.full((1, 12), start)} for start in range(4)]
    texts = written(5, "ids", begun, follows)
    assert texts is not None
    assert [text["ids"][0, :9].tolist() for text in texts] == [
        [(start + at) % 4 for at in range(9)] for start in range(4)
    ]
    chances = written(5, "ids", begun, lambda feeds: {"p": np.eye(5)[(feeds["ids"] + 1) % 5]})
    assert chances is not None
    assert chances[1]["ids"][0].tolist() == [(1 + at) % 5 for at in range(12)]


@pytest.mark.parametrize(
    "run",
    [
        lambda feeds: {"y": np.zeros((1, 12, 7))},
        # A model that looks at what comes behind gives no chances of what comes next.
        lambda feeds: {"y": CHAIN[feeds["ids"][:, ::-1]]},
        lambda feeds: {"y": CHAIN[feeds["ids"]].astype(np.int64)},
    ],
    ids=["no vocabulary", "both directions", "no scores"],
)
def test_what_is_no_language_model_writes_none(run: Any) -> None:
    assert written(5, "ids", [{"ids": np.arange(12)[None] % 5}], run) is None


def test_the_kind_of_inputs_is_said(rng: np.random.Generator, tmp_path: Path) -> None:
    result = quick_export(network(rng), tmp_path / "m.seed")
    assert result.inputs == "generated"
    assert result.as_json()["inputs_note"].startswith("random smooth pictures, changed until")
    exact = quick_export(network(rng), tmp_path / "m.seed", method="lossless")
    assert exact.inputs_note.startswith("random numbers;")


def _tensors(arrays: Mapping[str, np.ndarray]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _float(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
