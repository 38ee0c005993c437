"""A small classifier whose weights are damaged, and pictures that say what they were: for tests of fine-tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import seed_runtime
from seed_runtime.seed import Seed
from tests.exporter.support.exporting import quick_export
from tests.exporter.support.onnx_models import info, make
from tests.support.shared import SharedFolder

CLASSES, COUNT = 5, 160
STILLED = 4
"""Channels of the first convolution that the damage "stilled" leaves without weights."""


def model(damage: str) -> onnx.ModelProto:
    """Two convolutions with batch norms and a head of five classes, some of whose weights are damaged."""
    rng, noise = np.random.default_rng(1), np.random.default_rng(2)
    weights = {"k1": rng.standard_normal((12, 3, 3, 3)) / 5, "k2": rng.standard_normal((16, 12, 3, 3)) / 10}
    weights |= {"s1": np.ones(12), "b1": rng.normal(0, 0.5, 12), "m1": np.zeros(12), "v1": np.full(12, 1.3)}
    weights |= {"s2": rng.uniform(0.5, 1.5, 16), "b2": rng.normal(0, 0.5, 16), "m2": np.zeros(16)}
    weights |= {"v2": np.full(16, 0.7), "w": rng.standard_normal((CLASSES, 16)), "c": np.zeros(CLASSES)}
    if damage == "bn":
        weights["m1"], weights["v2"] = weights["m1"] + 1, 5 * weights["v2"]
    if damage == "stilled":
        weights["k1"][:STILLED], weights["v2"] = 0, 5 * weights["v2"]
    if damage == "head":
        weights["w"] = weights["w"] + noise.standard_normal((CLASSES, 16))
    if damage == "small":
        weights["b1"] = weights["b1"] + noise.normal(0, 0.6, 12)
        weights["s2"] = weights["s2"] * noise.uniform(0.3, 2, 16)
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "s1", "b1", "m1", "v1"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Conv", ["r", "k2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["d", "s2", "b2", "m2", "v2"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "c"], ["y"], transB=1),
    ]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    return make(nodes, stored, inputs=[info("x", ("n", 3, 8, 8))], outputs=[info("y", ("n", CLASSES))], opset=18)


def data(count: int = COUNT) -> dict[str, np.ndarray]:
    """Pictures, and what the undamaged model says of them."""
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((count, 3, 8, 8)) * rng.uniform(0.3, 2, (count, 3, 1, 1))).astype(np.float32)
    y = ort.InferenceSession(model("").SerializeToString()).run(None, {"x": x})[0]
    return {"x": x, "labels": (y - y.mean(axis=0)).argmax(axis=1)}


def damaged_seed(shared_folder: SharedFolder, damage: str) -> Seed:
    """Return the seed of the classifier, with a training graph but for the damage "no training graph"."""

    def export(folder: Path) -> None:
        is_plain = damage == "no training graph"
        quick_export(model(damage), folder / "m.seed", method="lossless", finetune_graph=not is_plain)

    return seed_runtime.open(shared_folder.made(f"fine-tuning-{damage}", export) / "m.seed")
