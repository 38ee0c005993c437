"""Covariances of layers' inputs predict how far an error of a weight moves the layer's outputs, for every operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.calibrate import COVARIANCES, activations, collect, covariances, shortage
from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.graph.linear import linear_view
from seed_exporter.loaders import load
from tests.exporter.support.exporting import of_nodes
from tests.exporter.support.gradients import session


@dataclass(frozen=True)
class Layer:
    """One node with a weight `w`, and the shape of its other operand `x`."""

    op: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    first: bool = False
    """Whether the weight is the node's first operand."""
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.op} {self.x} {self.w} {dict(self.attributes)}"


LAYERS = [
    Layer("MatMul", (2, 5, 4), (4, 7)),
    Layer("MatMul", (4,), (4, 7)),
    Layer("MatMul", (4, 6), (7, 4), first=True),
    Layer("MatMul", (2, 4, 6), (7, 4), first=True),
    Layer("MatMul", (5, 2, 6, 4), (2, 4, 3)),
    Layer("MatMul", (6, 4), (2, 4, 3)),
    Layer("MatMul", (3, 6, 4), (2, 1, 4, 3)),
    Layer("MatMul", (2, 4, 6), (2, 3, 4), first=True),
    Layer("Gemm", (5, 4), (4, 7), {"alpha": 0.5}),
    Layer("Gemm", (4, 5), (7, 4), {"transA": 1, "transB": 1}),
    Layer("Gemm", (4, 6), (7, 4), first=True),
    Layer("Gemm", (6, 4), (4, 7), {"transA": 1, "transB": 1}, first=True),
    Layer("FusedMatMul", (2, 5, 4), (7, 4), {"transB": 1, "alpha": 2.0}, domain="com.microsoft"),
    Layer("FusedMatMul", (2, 4, 5), (4, 7), {"transA": 1}, domain="com.microsoft"),
    Layer("Conv", (2, 4, 9), (6, 4, 3)),
    Layer("Conv", (2, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    Layer("Conv", (2, 4, 9, 8), (4, 1, 3, 3), {"group": 4, "dilations": [2, 1], "pads": [1, 1, 1, 1]}),
    Layer("Conv", (2, 4, 9, 8), (8, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    Layer("Conv", (1, 4, 9, 8), (3, 4, 4, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    Layer("Conv", (1, 4, 9, 8), (3, 4, 4, 2), {"auto_pad": "VALID"}),
    Layer("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 1, 3), {"pads": [1, 0, 0, 0, 0, 1]}),
    # Patches of the output don't overlap.
    Layer("ConvTranspose", (2, 4, 5), (4, 6, 3), {"strides": [3]}),
    Layer("ConvTranspose", (2, 4, 5, 3), (4, 3, 2, 2), {"strides": [2, 2], "group": 2}),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_covariance_of_a_layer_predicts_how_far_errors_of_its_weight_move_its_output(
    layer: Layer, rng: np.random.Generator, tmp_path: Path
) -> None:
    def model(weight: np.ndarray) -> onnx.ModelProto:
        names = ["w", "x"] if layer.first else ["x", "w"]
        node = helper.make_node(layer.op, names, ["y"], domain=layer.domain, **layer.attributes)
        return of_nodes([node], [numpy_helper.from_array(weight, "w")], [_float("x", layer.x)], [_float("y", None)],
                        domains=[layer.domain] if layer.domain else ())  # fmt: skip

    w = rng.standard_normal(layer.w).astype(np.float32)
    error = rng.standard_normal(layer.w).astype(np.float32)
    feeds = [{"x": rng.standard_normal(layer.x).astype(np.float32) + 1} for _ in range(6)]
    graph = load(model(w))
    found = collect(graph, {COVARIANCES}, feeds, tmp_path)[COVARIANCES]["w"]
    view = linear_view(graph.weights["w"])
    assert view is not None
    assert found.moments.shape == (4, view.shape[0], view.shape[2], view.shape[2])
    maps = view.maps_of(error)
    predicted = np.einsum("goi,gij,goj->", maps, found.total(), maps) * found.positions.sum()
    right, wrong = session(model(w)), session(model(w + error))
    moved = sum(float(np.square(wrong.run(None, feed)[0] - right.run(None, feed)[0]).sum()) for feed in feeds)
    assert predicted == pytest.approx(moved, rel=1e-3)
    of_one_part = [feeds[index] for index in (1, 5)]
    alone = collect(graph, {COVARIANCES}, of_one_part)[COVARIANCES]["w"]
    assert alone.total() == pytest.approx(found.moments[1], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("has_results", [True, False])
def test_recurrent_layers_have_covariances_of_their_inputs_and_of_the_states_they_go_on_from(
    op: str, direction: str, has_results: bool, rng: np.random.Generator, tmp_path: Path
) -> None:
    ways, gates, hidden = 1 + (direction == "bidirectional"), {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 5
    shapes = {"w": (ways, gates * hidden, 4), "r": (ways, gates * hidden, hidden)}
    arrays = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in shapes.items()]
    node = helper.make_node(op, ["x", "w", "r", "", "", "h0"], ["all" if has_results else "", "last"],
                            direction=direction, hidden_size=hidden)  # fmt: skip
    outputs = [_float("last", None), *([_float("all", None)] if has_results else [])]
    model = of_nodes([node], arrays, [_float("x", (7, 2, 4)), _float("h0", (ways, 2, hidden))], outputs)
    feed = {
        "x": rng.standard_normal((7, 2, 4)).astype(np.float32),
        "h0": rng.standard_normal((ways, 2, hidden)).astype(np.float32),
    }
    graph = load(model)
    found = collect(graph, {COVARIANCES}, [feed], tmp_path)[COVARIANCES]
    steps = feed["x"].reshape(14, 4)
    assert found["w"].moments[0] == pytest.approx(np.stack([steps.T @ steps / 14] * ways), rel=1e-3, abs=1e-4)
    assert found["r"].positions.tolist() == [14]
    if has_results:
        states = session(model).run(["all"], feed)[0]
        for way in range(ways):
            backwards = direction == "reverse" or way == 1
            own = states[::-1, way] if backwards else states[:, way]
            before = np.concatenate([feed["h0"][way][None], own[:-1]]).reshape(14, hidden)
            assert found["r"].moments[0, way] == pytest.approx(before.T @ before / 14, rel=1e-3, abs=1e-4)


def test_weights_that_are_used_twice_have_the_mean_over_both_uses(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    w = rng.standard_normal((8, 8)).astype(np.float32)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    graph = load(of_nodes(nodes, [numpy_helper.from_array(w, "w")], [_float("x", ("n", 8))], [_float("y", None)]))
    found = collect(graph, {COVARIANCES}, [{"x": x}])[COVARIANCES]["w"]
    both = np.concatenate([x, np.tanh(x @ w)])
    assert found.total()[0] == pytest.approx(both.T @ both / 6, rel=1e-3, abs=1e-5)
    assert found.positions.tolist() == [6]


def test_layers_with_the_same_input_share_their_covariance(rng: np.random.Generator) -> None:
    found = _of_chain(rng, ["x", "x", "a0"])
    assert found["w0"] is found["w1"]
    assert found["w0"] is not found["w2"]


def test_what_has_no_covariance_is_left_out(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _of_chain(rng, ["x"], samples=0) == {}
    monkeypatch.setattr(covariances, "INPUTS_MAX", 7)
    assert _of_chain(rng, ["x"]) == {}


def test_weights_of_nested_graphs_have_no_covariance(rng: np.random.Generator) -> None:
    def branch(name: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node("MatMul", ["x", "w"], [name])], name, [], [_float(name, None)])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    w = numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), "w")
    graph = load(of_nodes([node], [w], [_float("x", ("n", 8)), condition], [_float("y", None)]))
    feed = {"x": np.ones((2, 8), np.float32), "c": np.array(True)}
    assert collect(graph, {COVARIANCES}, [feed])[COVARIANCES] == {}


def test_covariances_are_the_same_in_passes_of_few_layers_and_in_a_file(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = ["x", "a0", "a1"]
    state = rng.bit_generator.state
    together = _of_chain(rng, sources)
    monkeypatch.setattr(activations, "MEMORY_MAX", 1)
    monkeypatch.setattr(covariances, "MEMORY_MAX", 1)
    rng.bit_generator.state = state
    apart = _of_chain(rng, sources, folder=tmp_path)
    assert apart.keys() == {"w0", "w1", "w2"}
    for name, found in apart.items():
        assert np.array_equal(found.moments, together[name].moments)
        assert not found.moments.flags.writeable
        found.release()  # of the memory, not of the values
        assert np.array_equal(found.moments, together[name].moments)
    assert (tmp_path / "moments.f32").stat().st_size == 3 * 4 * 64 * 4


def test_positions_are_capped_and_spread_evenly(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariances, "POSITIONS_MAX", 50)
    w = rng.standard_normal((3, 2, 1, 1, 8)).astype(np.float32)[..., 0]
    model = of_nodes([helper.make_node("Conv", ["x", "w"], ["y"])],
                     [numpy_helper.from_array(np.tile(w, (8, 1, 1, 1)), "w")],
                     [_float("x", (1, 2, 40, 50))], [_float("y", None)])  # fmt: skip
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(50.0), indexing="ij")
    x = np.stack([rows, columns])[None].astype(np.float32)
    found = collect(load(model), {COVARIANCES}, [{"x": x}])[COVARIANCES]["w"]
    assert found.positions.tolist() == [50]
    squares = [np.square(rows).mean(), np.square(columns).mean()]
    assert np.diag(found.moments[0, 0]) == pytest.approx(squares, rel=0.2)


def test_dead_and_infinite_activations_do_no_harm(rng: np.random.Generator) -> None:
    dead = _of_chain(rng, ["x", "a0"], scale=0)
    assert not dead["w0"].moments.any()
    w = rng.standard_normal((8, 8)).astype(np.float32)
    nodes = [helper.make_node("Log", ["x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    graph = load(of_nodes(nodes, [numpy_helper.from_array(w, "w")], [_float("x", ("n", 8))], [_float("y", None)]))
    x = np.full((3, 8), np.e, np.float32)
    x[1, 2] = 0
    found = collect(graph, {COVARIANCES}, [{"x": x}])[COVARIANCES]["w"]
    assert found.moments == pytest.approx(np.ones((1, 1, 8, 8)))
    assert found.positions.tolist() == [2]
    x[:] = 0
    assert collect(graph, {COVARIANCES}, [{"x": x}])[COVARIANCES] == {}


def test_a_note_counts_the_layers_that_saw_fewer_positions_than_they_have_inputs(rng: np.random.Generator) -> None:
    assert shortage(_of_chain(rng, ["x", "a0"])) == ""
    assert shortage({}) == ""
    note = shortage(_of_chain(rng, ["x", "a0"], samples=2))
    assert note.startswith("2 of 2 layers have more inputs than the calibration has positions")


def _of_chain(
    rng: np.random.Generator, sources: Sequence[str], samples: int = 5, folder: Path | None = None, scale: float = 1
) -> Mapping[str, Covariance]:
    """Covariances of layers w0, w1, ... of 8 x 8 that read `sources`: x, or a0 = relu(x w0), a1 and so on."""
    nodes = []
    for index, source in enumerate(sources):
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], [f"a{index}"]))
    arrays = [
        numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), f"w{index}")
        for index in range(len(sources))
    ]
    outputs = [_float(f"a{index}", None) for index in range(len(sources))]
    graph = load(of_nodes(nodes, arrays, [_float("x", ("n", 8))], outputs))
    feeds = [{"x": scale * rng.standard_normal((3, 8)).astype(np.float32)} for _ in range(samples)]
    return collect(graph, {COVARIANCES}, feeds, folder)[COVARIANCES]


def _float(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
