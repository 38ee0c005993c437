"""A small model of convolutions with batch norms, to be healed."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import loaders
from seed_exporter.graph.model import Graph

CHANNELS, CLASSES, SIDE = 24, 5, 6


def convolutions(rng: np.random.Generator, activation: str = "Relu") -> Graph:
    """Return two convolutions with batch norms, a mean over positions and a dense layer with a softmax.

    x: [batch, 3, 6, 6] -> y: [batch, 5].
    """
    arrays = {
        "k0": rng.standard_normal((CHANNELS, 3, 3, 3)) / 5,
        "k1": rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 14,
        "dense": rng.standard_normal((CHANNELS, CLASSES)),
        "bias": rng.standard_normal(CLASSES),
    }
    nodes, value = [], "x"
    for index in range(2):
        arrays |= {
            f"scale{index}": rng.choice([-1, 1], CHANNELS) * np.exp(rng.normal(0, 0.5, CHANNELS)),
            f"shift{index}": rng.normal(0, 0.3, CHANNELS),
            f"mean{index}": rng.normal(0, 0.1, CHANNELS),
            f"variance{index}": np.exp(rng.normal(0, 0.3, CHANNELS)),
        }
        norm = [f"{name}{index}" for name in ("scale", "shift", "mean", "variance")]
        nodes += [
            helper.make_node("Conv", [value, f"k{index}"], [f"c{index}"], name=f"conv{index}", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"c{index}", *norm], [f"n{index}"], name=f"norm{index}"),
            helper.make_node(activation, [f"n{index}"], [f"r{index}"]),
        ]
        value = f"r{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["scores"], name="gemm"),
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return loaders.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def inputs(count: int, rng_seed: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(rng_seed)
    return [{"x": rng.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)} for _ in range(count)]
