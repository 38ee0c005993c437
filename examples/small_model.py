"""A small classifier in ONNX and its data, made by NumPy in a second; what the other examples export.

Ten classes of 64 numbers; 256 random features, and a last layer that least squares finds: 19 thousand weights.
`python examples/small_model.py` writes model.onnx, calib.npz, data.npz and x.npz here.

Prints:
    model.onnx: 76.1 KB, 97.0 % of 2,000 held-out samples right
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

CLASSES, INPUTS, FEATURES = 10, 64, 256


def samples(count: int, rng_seed: int) -> dict[str, np.ndarray]:
    """Draw samples: `x`, float32 of (count, 64), and `labels`, int64 of (count,)."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, INPUTS))
    rng = np.random.default_rng(rng_seed)
    labels = rng.integers(0, CLASSES, count)
    x = centres[labels] + 1.8 * rng.normal(size=(count, INPUTS))
    return {"x": x.astype(np.float32), "labels": labels}


def write_model(path: Path) -> Path:
    """Train the classifier and write it as ONNX, with input `x` and output `scores`."""
    data = samples(4000, rng_seed=1)
    rng = np.random.default_rng(2)
    first = (rng.normal(size=(INPUTS, FEATURES)) / np.sqrt(INPUTS)).astype(np.float32)
    features = np.maximum(data["x"] @ first, 0)
    targets = 8 * np.eye(CLASSES, dtype=np.float32)[data["labels"]]
    last = np.linalg.solve(features.T @ features + 10 * np.eye(FEATURES, dtype=np.float32), features.T @ targets)
    weights = {"first": first, "last": last.astype(np.float32), "bias": np.full(CLASSES, -1, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["features"]),
            helper.make_node("MatMul", ["features", "last"], ["sums"]),
            helper.make_node("Add", ["sums", "bias"], ["scores"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)
    return path


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose largest score is that of their label."""
    return float((scores.argmax(axis=1) == labels).mean())


def write_all() -> Path:
    """Write the model, its path is returned; 256 inputs to calibrate on, 400 labelled samples, and 8 inputs to try."""
    np.savez("calib.npz", x=samples(256, rng_seed=3)["x"])
    np.savez("data.npz", **samples(400, rng_seed=4))
    np.savez("x.npz", x=samples(8, rng_seed=6)["x"])
    return write_model(Path("model.onnx"))


if __name__ == "__main__":
    import onnxruntime

    path = write_all()
    held_out = samples(2000, rng_seed=5)
    (scores,) = onnxruntime.InferenceSession(path).run(None, {"x": held_out["x"]})
    right = accuracy(scores, held_out["labels"])
    print(f"{path}: {path.stat().st_size / 1000:.1f} KB, {100 * right:.1f} % of 2,000 held-out samples right")
