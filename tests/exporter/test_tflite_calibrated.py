"""Quantized seeds of TFLite models: what layers multiply their weights by, and what is written of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_exporter import loaders
from seed_exporter.calibrate.linear_inputs import source_of
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.matrix import as_float32, matrix_view
from seed_exporter.graph.model import Graph
from seed_exporter.pipeline import export
from seed_exporter.results import Options
from seed_runtime.backends import litert
from tests.support.tflite_bytes import Numbers, Scalar, buffer, code, model, operator, subgraph, tensor

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")

RNG = np.random.default_rng(7)
CONV, DEPTHWISE, DENSE = 3, 4, 9
SHAPES = {"conv": (16, 3, 3, 8), "alone": (1, 3, 3, 32), "dense": (10, 512)}


def floats(*shape: int) -> bytes:
    return RNG.standard_normal(shape).astype("<f4").tobytes()


def layers(padding: int, stride: int) -> bytes:
    """Return a model of a convolution, one of each channel alone with two results each, and a dense layer."""
    side = -(-8 // stride) if padding == 0 else (8 - 3) // stride + 1
    tensors = [
        tensor([1, 8, 8, 8], 0, "x"),
        *(tensor(shape, 1 + index, name) for index, (name, shape) in enumerate(SHAPES.items())),
        tensor([1, side, side, 16], 0, "first"),
        tensor([1, side, side, 32], 0, "second"),
        tensor([16], 4, "bias"),
        tensor([32], 5, "other bias"),
    ]
    conv = {0: Scalar("b", padding), 1: Scalar("i", stride), 2: Scalar("i", stride)}
    operators: list[dict[int, Any]] = [
        {**operator(0, [0, 1, 6], [4]), 3: Scalar("B", 1), 4: conv},
        {**operator(1, [4, 2, 7], [5]), 3: Scalar("B", 2), 4: {**_ONE, 3: Scalar("i", 2)}},
    ]
    buffers = [buffer(), *(buffer(floats(*shape)) for shape in SHAPES.values()), buffer(floats(16)), buffer(floats(32))]
    output = 5
    if (padding, stride) == (0, 2):
        tensors += [tensor([1, 10], 0, "y"), tensor([10], 0, "no bias")]
        operators.append({**operator(2, [5, 3, -1], [8]), 3: Scalar("B", 8), 4: {0: Scalar("b", 0)}})
        output = 8
    return model(
        codes=[code(CONV), code(DEPTHWISE), code(DENSE)],
        subgraphs=[subgraph(tensors, [0], [output], operators)],
        buffers=buffers,
    )


_ONE = {0: Scalar("b", 0), 1: Scalar("i", 1), 2: Scalar("i", 1)}


def loaded(tmp_path: Path, data: bytes) -> Graph:
    (tmp_path / "m.tflite").write_bytes(data)
    return loaders.load(tmp_path / "m.tflite")


@pytest.mark.parametrize(("padding", "stride"), [(0, 1), (0, 2), (1, 1), (1, 2)])
def test_weights_times_what_a_layer_sees_are_what_it_gives(padding: int, stride: int, tmp_path: Path) -> None:
    graph = loaded(tmp_path, layers(padding, stride))
    (folder := tmp_path / "model").mkdir()
    write_model_files(graph, folder)
    runner = litert.BACKEND.open_preserving(folder, 1)
    feeds = {"x": RNG.standard_normal((1, 8, 8, 8)).astype(np.float32)}
    runner.run(feeds, [])
    assert graph.file is not None
    seen = []
    for node in graph.model.graph.node:
        weight = graph.weights[node.input[1]]
        view, source = linear_view(weight), source_of(node, 1, weight)
        if view is None or source is None:
            assert node.op_type == "FULLY_CONNECTED"  # which takes an image as one row
            continue
        values = {
            name: feeds[name] if name in feeds else runner.inner(graph.file.numbers[name]) for name in source.values
        }
        vectors = source.vectors(values, np.arange)
        products = np.einsum("gpi,goi->pgo", vectors, view.maps_of(as_float32(weight).reshape(-1)))
        bias = as_float32(graph.weights[node.input[2]]).reshape(-1)
        given = runner.inner(graph.file.numbers[node.output[0]])
        np.testing.assert_allclose(products.reshape(given.shape) + bias, given, rtol=1e-4, atol=1e-4)
        seen.append(node.op_type)
    assert seen == ["CONV_2D", "DEPTHWISE_CONV_2D"]


def test_rows_are_outputs_and_columns_of_a_channel_alone_are_channels(tmp_path: Path) -> None:
    weights = loaded(tmp_path, layers(0, 2)).weights
    assert {name: matrix_view(weights[name]) for name in SHAPES} == {
        "conv": (16, 72), "alone": (9, 32), "dense": (10, 512),
    }  # fmt: skip


def test_integers_of_quantized_models_are_kept_whatever_the_method(tmp_path: Path) -> None:
    scale = {4: {2: Numbers("f", [0.5]), 3: Numbers("q", [0], 8)}}
    tensors = [tensor([256], 1 if name == "w" else 0, name, 9, more=scale) for name in ("x", "w", "y")]
    data = model(tensors=tensors, buffers=[buffer(), buffer(RNG.integers(0, 256, 256, np.uint8).tobytes())])
    (tmp_path / "q.tflite").write_bytes(data)
    graph = loaders.load(tmp_path / "q.tflite")
    assert [(weight.dtype.name, weight.shape) for weight in graph.weights.values()] == [("int8", (256,))]
    export(tmp_path / "q.tflite", output=tmp_path / "q.seed", options=Options(jobs=1, effort=1))
    seed = seed_runtime.open(tmp_path / "q.seed")
    assert (seed.assemble(tmp_path / "out") / "model.tflite").read_bytes() == data
    assert [str(spec) for spec in seed.inputs()] == ["x: int8[256]"]


@pytest.mark.slow
def test_a_quantized_seed_changes_weights_alone_and_is_rounded_by_what_layers_see(tmp_path: Path) -> None:
    data = layers(0, 2)
    (tmp_path / "m.tflite").write_bytes(data)
    # Of four patterns, so that what a layer's inputs have in common can make up for rounding.
    inputs = RNG.standard_normal((64, 4)) @ RNG.standard_normal((4, 512))
    np.savez(tmp_path / "calib.npz", x=inputs.reshape(64, 1, 8, 8, 8).astype(np.float32))
    options = Options(jobs=1, calib=tmp_path / "calib.npz", target=4.0)
    result = export(tmp_path / "m.tflite", output=tmp_path / "m.seed", options=options)
    assert result.goal_met
    assert "conv" in result.calibrated
    assert result.damage < 0.05
    seed = seed_runtime.open(tmp_path / "m.seed")
    made = (seed.assemble(tmp_path / "out") / "model.tflite").read_bytes()
    assert len(made) == len(data)
    graph = loaders.load(tmp_path / "m.tflite")
    assert graph.file is not None
    kept = np.ones(len(data), bool)
    for place in graph.file.places.values():
        kept[place.offset : place.offset + place.size] = False
    assert np.array_equal(np.frombuffer(made, np.uint8)[kept], np.frombuffer(data, np.uint8)[kept])
    with seed.session() as session:
        assert session.verify().ok
