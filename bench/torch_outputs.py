"""Run public models in torch, as healing does, beside ONNX Runtime: how far their outputs are from each other.

A distance is the norm of the difference as a share of the norm of ONNX Runtime's output, the largest of some inputs of
the `calib` split. ONNX Runtime runs the graph as it is, without its optimizer: that has products of 4-bit weights
computed in 8 bits. Beside it is how far each of both is from the same graph in double precision, where torch's
functions run as well, and what ONNX Runtime's own optimizer changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import measure
from bench.measure import Figures, Goal
from bench.public import MODELS, Feeds, PublicModel, cache_folder
from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_runtime import backends

MOST: Final = 1e-5
"""Largest distance (issue 10)."""
INPUTS: Final = {"smollm2": 1}
"""Number of inputs of a model that takes long."""
INPUTS_USUALLY: Final = 4
Outputs = Mapping[str, np.ndarray]


def run(quick: bool = False) -> Figures:
    names = ("magika", "ppcls") if quick else MODELS
    rows = [row for name in names for row in _rows(MODELS[name])]
    goals = [Goal(f"{row['model']}, {row['output']}: distance", row["distance"], MOST, "") for row in rows]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _rows(model: PublicModel) -> list[Figures]:
    import torch

    from seed_exporter.heal.interpreter import Interpreter

    measure.note(model.name)
    graph = loaders.load(model.prepare(cache_folder()))
    inputs = model.inputs(cache_folder(), INPUTS.get(model.name, INPUTS_USUALLY), "calib")
    single, double = Interpreter(graph), Interpreter(graph, torch.float64)

    def in_torch(interpreter: Interpreter, feeds: Feeds) -> Outputs:
        with torch.no_grad():
            return {name: value.numpy() for name, value in interpreter.run(feeds).items()}

    with measure.scratch() as folder:
        path = write_model_files(graph, folder)
        plain, optimized = (_session(path, level) for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"))
        found = [
            (in_torch(single, feeds), in_torch(double, feeds), _run(plain, feeds), _run(optimized, feeds))
            for feeds in inputs
        ]
    return [
        {
            "model": model.name,
            "output": f"output {number}",
            "inputs": len(found),
            "distance": max(_distance(own[name], theirs[name]) for own, _, theirs, _ in found),
            "torch": max(_distance(own[name], exact[name]) for own, exact, _, _ in found),
            "ort": max(_distance(theirs[name], exact[name]) for _, exact, theirs, _ in found),
            "optimizer": max(_distance(other[name], theirs[name]) for _, _, theirs, other in found),
        }
        for number, name in enumerate(found[0][2])
    ]


def _session(path: Path | str, level: str) -> Any:
    backends.get().load()  # without its telemetry
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(path, options)


def _run(session: Any, feeds: Feeds) -> Outputs:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the distance of two outputs; infinite where their shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return measure.rounded(float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64))))


def table(figures: Figures) -> list[str]:
    columns = ("inputs", "torch from ONNX Runtime", "torch from double", "ONNX Runtime from double", "by its optimizer")
    lines = [f"| largest distance | {' | '.join(columns)} |", "|---|--:|--:|--:|--:|--:|"]
    return lines + [
        f"| {row['model']}, {row['output']} | {row['inputs']} | **{row['distance']:.1e}** | {row['torch']:.1e} "
        f"| {row['ort']:.1e} | {row['optimizer']:.1e} |"
        for row in figures["rows"]
    ]
