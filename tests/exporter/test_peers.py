"""Peers on a small model: what they deliver runs, and is as near the original as their bits allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seed_exporter import loaders
from seed_exporter.graph.model import Graph
from seed_exporter.peers import PEERS, PeerError, nncf, nncodec, onnxruntime, xz
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
    """Return the relative error of the model's outputs against the graph's."""
    original = xz.make(graph, (), folder, 0).model
    gaps, norms = [], []
    backends.get().load()
    import onnxruntime as ort

    first, second = (ort.InferenceSession(str(path)) for path in (original, model))
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
    from onnx import TensorProto, helper, numpy_helper

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


def test_every_peer_says_how_it_is_installed() -> None:
    assert list(PEERS) == [peer.name for peer in PEERS.values()]
    for peer in PEERS.values():
        assert peer.is_installed or peer.install.startswith("pip install")
