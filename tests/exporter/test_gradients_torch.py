"""Graphs of gradients beside torch: rules one by one, and public models as a whole. Skipped without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.gradients import gradient_graph, missing_rules
from seed_exporter.graph.kinds import FLOATS
from tests.exporter.support.gradients import Case, model_of
from tests.exporter.test_gradient_rules import CASES
from tests.support.public_models import CACHE, prepared, tasks

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
from seed_exporter.heal.registry import OPERATORS  # noqa: E402
from tests.exporter.support.torch_graph import torch_gradients  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds

MODELS = ["magika", "efflite0", "pprec", "ppdet", "ppcls", "minilm6", "basicpitch", "smollm2"]
SINGLE = np.dtype(np.float32)
RULE_TOLERANCE = 1e-5
"""Largest distance from torch's gradients, as a part of their norm."""
ROUNDING = 16
"""Largest distance of a model's gradients in float32 from torch's in float64, in distances of torch's in float32.

It is 7 for basicpitch, whose logarithms enlarge ONNX Runtime's rounding, and at most 3 for the others.
"""
NARROW = {"smollm2": 0.02}
"""Largest distance of the models that compute in float16, which torch doesn't do here."""
NARROW_SCALE = 1e-3
"""Factor on the gradients of their outputs, which keeps those of their weights below float16's largest number."""


def distance(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    over = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(found, expected, strict=True))
    return float(np.sqrt(over / sum(float(np.square(b).sum()) for b in expected)))


@pytest.mark.parametrize("case", [case for case in CASES if (case.domain, case.op) in OPERATORS], ids=str)
def test_a_rule_gives_what_torch_gives(case: Case, tmp_path: Path) -> None:
    graph = loaders.load(model_of(case, SINGLE, free=False))
    feeds = {
        f"x{index}": each.astype(SINGLE)
        for index, each in enumerate(case.inputs)
        if each is not None and each.dtype == np.float64 and index not in case.constant
    }
    check(graph, feeds, list(feeds), tmp_path, RULE_TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_public_model_are_torchs(name: str, tmp_path: Path) -> None:
    graph = loaders.load(prepared(name))
    wrt = [weight.name for weight in graph.weights.values() if weight.dtype.name in FLOATS]
    outputs = [value.name for value in graph.model.graph.output]
    assert missing_rules(graph, outputs, wrt) == {}
    feeds = tasks().MODELS[name].inputs(CACHE, 1, "calib")[0]
    scale = NARROW_SCALE if name in NARROW else 1.0
    check(graph, feeds, wrt, tmp_path, NARROW.get(name), scale)


def check(graph, feeds, wrt: list[str], folder: Path, tolerance: float | None, scale: float = 1) -> None:
    outputs = [value.name for value in graph.model.graph.output]
    session = ort.InferenceSession(write_model_files(gradient_graph(graph, outputs, wrt), folder))
    given = {value.name: value for value in session.get_inputs()}
    shapes = dict(zip(outputs, (y.shape for y in forward(graph, feeds, folder)), strict=True))
    rng = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    seeds = {
        name: np.asarray(scale * rng.standard_normal(shape)).astype(kinds[given[f"grad.{name}"].type])
        for name, shape in shapes.items()
    }
    found = session.run([f"grad.{name}" for name in wrt], feeds | {f"grad.{name}": g for name, g in seeds.items()})
    expected = torch_gradients(graph, feeds, seeds, wrt)
    if not any(each.any() for each in expected):
        assert not any(each.any() for each in found)
        return
    if tolerance is None:
        single = torch_gradients(graph, feeds, seeds, wrt, torch.float32)
        tolerance = max(RULE_TOLERANCE, ROUNDING * distance(single, expected))
    assert distance(found, expected) <= tolerance


def forward(graph, feeds, folder: Path) -> list[np.ndarray]:
    inside = folder / "forward"
    inside.mkdir()
    return ort.InferenceSession(write_model_files(graph, inside)).run(None, feeds)
