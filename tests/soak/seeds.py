"""Versions of one small model, their outputs on one input, and which of them a device answered with."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

import seed_runtime
from seed_runtime import generator
from seed_runtime.format.sections.model import FEATURE_LEVEL
from seed_runtime.golden import Recipe
from tests.support.model_seeds import F32, build_model_seed, onnx_model

MODEL = "soak"
INPUTS, OUTPUTS = 96, 40
TOLERANCE = 1e-4
"""Tolerance of an answer, relative to the largest output. Two machines differ by 1e-6, two versions by about 1."""


@dataclass(frozen=True)
class Version:
    """One seed, and what its model gives for the input."""

    path: Path
    digest: str
    output: np.ndarray

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def versions(folder: Path, count: int, *, hidden: int = 256, feature_level: int = FEATURE_LEVEL) -> list[Version]:
    """Write `count` versions, each with weights of its own. The same call gives the same seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(1, count + 1):
        path = folder / f"v{number}.seed"
        path.write_bytes(
            build_model_seed(
                _model(np.random.default_rng(number), hidden),
                model_id=MODEL,
                version=number,
                feature_level=feature_level,
                step=0.3,
                recipes=[Recipe(generator.NORMAL, F32, (1, INPUTS), 0.0, 1.0)],
            )
        )
        seed = seed_runtime.open(path)
        with seed.session() as session:
            output = session.run({"x": common_input()})["y"]
        made.append(Version(path, seed.digest.hex(), output))
    return made


def _model(rng: np.random.Generator, hidden: int) -> onnx.ModelProto:
    """Return y = relu(x @ w0) @ w1 of float32 x: (batch, INPUTS)."""
    weights = {
        "w0": rng.standard_normal((INPUTS, hidden)) / INPUTS**0.5,
        "w1": rng.standard_normal((hidden, OUTPUTS)) / hidden**0.5,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["positive"]),
        helper.make_node("MatMul", ["positive", "w1"], ["y"]),
    ]
    return onnx_model(nodes, {"x": ["batch", INPUTS]}, {"y": ["batch", OUTPUTS]}, weights)


def common_input() -> np.ndarray:
    """Return the input that every device gets."""
    return np.random.default_rng(0).standard_normal((2, INPUTS)).astype(np.float32)


def input_file() -> bytes:
    """Return the same input as a file for `seed-run --input`."""
    file = io.BytesIO()
    np.savez(file, x=common_input())
    return file.getvalue()


def version_of(data: bytes, known: list[Version]) -> Version | None:
    """Return the version that gave this answer, None if none of them did."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        output = arrays["y"]
    for version in known:
        if output.shape == version.output.shape:
            worst = np.abs(output - version.output).max()
            if worst <= TOLERANCE * np.abs(version.output).max():
                return version
    return None
