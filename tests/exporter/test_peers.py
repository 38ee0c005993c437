"""Peers on a small model: what they deliver runs, and is as near the original as their bits allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import loaders
from seed_exporter.graph.model import Graph
from seed_exporter.peers import PEERS, PeerError, nncf, nncodec, onnxruntime, xz
from seed_exporter.peers.base import check_prepared, peer_call, single_file
from seed_runtime import backends
from tests.exporter.support.exporting import layers, of_nodes

SIZES = (64, 128, 96)


@pytest.fixture
def graph(rng: np.random.Generator) -> Graph:
    return loaders.load(layers(rng, *SIZES))


@pytest.fixture
def feeds(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    return [{"x": rng.standard_normal((4, SIZES[0])).astype(np.float32)} for _ in range(4)]


def error(graph: Graph, model: Path, feeds: list[dict[str, np.ndarray]], folder: Path) -> float:
    """Return the relative error of the model's outputs against the graph's.

    Nothing is fused: without VNNI a processor saturates products of integers at 16 bits, which no model can help.
    """
    original = xz.make(graph, (), folder, 0).model
    gaps, norms = [], []
    backends.get().load()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    first, second = (ort.InferenceSession(str(path), options) for path in (original, model))
    for feed in feeds:
        (a,), (b,) = first.run(None, feed), second.run(None, feed)
        gaps.append(np.square(a - b).sum())
        norms.append(np.square(a).sum())
    return float(np.sqrt(sum(gaps) / sum(norms)))


def test_xz_keeps_every_bit(graph: Graph, feeds: list, tmp_path: Path) -> None:
    made = xz.make(graph, feeds, tmp_path, 0)
    assert error(graph, made.model, feeds, tmp_path) == 0
    assert 0.8 * graph.distinct_bytes < made.size < graph.distinct_bytes + 2000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most_error", "most_share"),
    [
        ("ORT int8, dynamic", 0.03, 0.30),
        ("ORT int8, static", 0.10, 0.35),
        ("ORT 4 bits", 0.20, 0.24),
    ],
)
def test_quantizers_of_onnx_runtime_deliver_what_their_bits_allow(
    name: str, most_error: float, most_share: float, graph: Graph, feeds: list, tmp_path: Path
) -> None:
    made = PEERS[name].make(graph, feeds, tmp_path, 0)
    assert 0 < error(graph, made.model, feeds, tmp_path) < most_error
    assert made.size < most_share * graph.distinct_bytes


def test_static_quantization_without_inputs_is_refused(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="needs calibration inputs"):
        onnxruntime.STATIC.make(graph, [], tmp_path, 0)


@pytest.mark.slow
@pytest.mark.skipif(not nncf.INT8.is_installed, reason=f"nncf is missing: {nncf.INT8.install}")
@pytest.mark.parametrize(("name", "most_error"), [("NNCF int8", 0.03), ("NNCF 4 bits", 0.2)])
def test_nncf_delivers_what_its_bits_allow(
    name: str, most_error: float, graph: Graph, feeds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = PEERS[name].make(graph, feeds, tmp_path, 0)
    assert 0 < error(graph, made.model, feeds, tmp_path) < most_error
    assert made.size < 0.3 * graph.distinct_bytes


@pytest.fixture
def old_convolution(rng: np.random.Generator) -> Graph:
    """A convolution of opset 11, with a constant that is cast: what peers take only when it is prepared."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["shape"], ["s"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["c", "s"], ["y"]),
    ]
    weight = (rng.standard_normal((32, 16, 3, 3)) * np.exp(rng.normal(0, 1, (32, 1, 1, 1)))).astype(np.float32)
    initializers = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([1, -1], np.int32), "shape")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32 * 64])
    return loaders.load(of_nodes(nodes, initializers, [x], [y], opset=11))


@pytest.fixture
def pictures(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    return [{"x": rng.standard_normal((1, 16, 8, 8)).astype(np.float32)} for _ in range(4)]


@pytest.mark.slow
@pytest.mark.skipif(not nncf.INT8.is_installed, reason=f"nncf is missing: {nncf.INT8.install}")
@pytest.mark.parametrize("name", ["NNCF int8", "NNCF 4 bits"])
def test_nncf_compresses_an_old_convolution(name: str, old_convolution: Graph, pictures: list, tmp_path: Path) -> None:
    made = PEERS[name].make(old_convolution, (), tmp_path, 0)
    assert 0 < error(old_convolution, made.model, pictures, tmp_path) < 0.02
    assert made.size < 0.4 * old_convolution.distinct_bytes


@pytest.mark.slow
def test_static_quantization_has_a_scale_for_each_channel_of_an_old_convolution(
    old_convolution: Graph, pictures: list, tmp_path: Path
) -> None:
    made = onnxruntime.STATIC.make(old_convolution, pictures, tmp_path, 0)
    assert 0 < error(old_convolution, made.model, pictures, tmp_path) < 0.05
    assert made.size < 0.4 * old_convolution.distinct_bytes


def test_nodes_that_share_a_bias_get_one_each_and_a_name() -> None:
    nodes = [helper.make_node("Conv", [value, "w", "b"], [value + "c"]) for value in ("x", "xc")]
    initializers = [numpy_helper.from_array(np.ones(size, np.float32), n) for n, size in (("w", (1, 1, 1)), ("b", 1))]
    model = onnxruntime._with_own_biases(of_nodes(nodes, initializers, [], []))
    assert [(node.name, node.input[2]) for node in model.graph.node] == [("node_0", "b"), ("node_1", "node_1.bias")]
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[1, 1, 1], [1], [1]]


@pytest.mark.slow
def test_static_quantization_leaves_out_operators_without_weights_where_that_does_less_damage(
    graph: Graph, feeds: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, sizes = {}, {}
    for operators in [(), ("MatMul",)]:
        folder = tmp_path / str(len(operators))
        folder.mkdir()
        monkeypatch.setattr(onnxruntime, "_WEIGHTED", operators)
        made = onnxruntime.STATIC.make(graph, feeds, folder, 0)
        errors[operators], sizes[operators] = error(graph, made.model, feeds, folder), made.size
    assert errors["MatMul",] <= errors[()]


def test_a_prepared_model_that_answers_otherwise_is_no_peers_input(graph: Graph, tmp_path: Path) -> None:
    for number, factor in enumerate((1, 1.01)):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = onnx.load(single_file(graph, folder))
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(weight), weight.name))
        if factor == 1:
            check_prepared(graph, model, folder)
        else:
            with pytest.raises(PeerError, match=r"answers otherwise: relative error 0\.0"):
                check_prepared(graph, model, folder)


@pytest.mark.slow
@pytest.mark.skipif(not nncodec.PEER.is_installed, reason=f"nncodec is missing: {nncodec.PEER.install}")
def test_nncodec_trades_bytes_for_error_and_returns_what_it_decodes(graph: Graph, feeds: list, tmp_path: Path) -> None:
    errors, sizes = [], []
    for number, setting in enumerate((-9 * nncodec.OCTAVE, -6 * nncodec.OCTAVE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = nncodec.PEER.make(graph, feeds, folder, setting)
        errors.append(error(graph, made.model, feeds, tmp_path))
        sizes.append(made.size)
    assert 0 < errors[0] < errors[1] < 0.5
    assert sizes[1] < sizes[0] < 0.35 * graph.distinct_bytes


@pytest.mark.slow
@pytest.mark.skipif(not nncodec.PEER.is_installed, reason=f"nncodec is missing: {nncodec.PEER.install}")
def test_nncodec_names_what_it_needs(tmp_path: Path, rng: np.random.Generator) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    vector = numpy_helper.from_array(rng.standard_normal(64).astype(np.float32), "b")
    graph = loaders.load(of_nodes([helper.make_node("Add", ["x", "b"], ["y"])], [vector], value[:1], value[1:]))
    with pytest.raises(PeerError, match="this model has none"):
        nncodec.PEER.make(graph, [], tmp_path, nncodec.SETTINGS[0])


def test_steps_of_nncodec_double_in_an_octave_of_sixteen() -> None:
    assert nncodec.step_of(0) == 1
    assert nncodec.step_of(-nncodec.OCTAVE) == 0.5
    assert nncodec.step_of(8) == 1.5
    assert sorted(nncodec.SETTINGS) == list(nncodec.SETTINGS)


def test_what_a_peer_writes_to_the_current_folder_stays_in_its_own(tmp_path: Path) -> None:
    before = Path.cwd()
    with peer_call(tmp_path):
        Path("weights.data").write_bytes(b"1")
    with pytest.raises(PeerError, match="ValueError: no"), peer_call(tmp_path):
        raise ValueError("no")
    assert (tmp_path / "weights.data").exists()
    assert Path.cwd() == before


def test_every_peer_says_how_it_is_installed() -> None:
    assert list(PEERS) == [peer.name for peer in PEERS.values()]
    for peer in PEERS.values():
        assert peer.is_installed or peer.install.startswith("pip install")
