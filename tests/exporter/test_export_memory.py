"""An export takes at most four times its model and 1 GB of memory, whatever its rounders hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest

from seed_exporter.calibrate import COVARIANCES, ROW_COUNTS, collect
from seed_exporter.codecs.grid import GridCodec, GridPlan
from seed_exporter.loaders import load
from seed_exporter.quantize import rounding_plans
from seed_exporter.quantize.effort import EFFORTS
from seed_exporter.quantize.findings import Findings
from seed_exporter.quantize.rounding.by_covariance import CovarianceRounder
from seed_exporter.quantize.rounding_plans import RoundedPlans
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from tests.exporter.support.exporting import graph_of, layers

FIXED = 1_000_000_000
"""What an export may take beside four times its model [B]."""
EXPORT = """
import json, sys
from pathlib import Path
from seed_exporter import Options, export
from seed_exporter.evaluate import footprint
from seed_runtime.memory.process import peak_rss
footprint.measure = lambda *_, **__: None
model, output, calib, options = sys.argv[1:]
export(model, output=output, options=Options(calib=Path(calib) if calib else None, **json.loads(options)))
print(peak_rss())
"""


def peak(model: Path, calib: Path | None = None, **options: Any) -> int:
    """Export a model in a process of its own, and return the most memory that it took [B]."""
    words = [str(model), str(model.with_suffix(".seed")), str(calib or ""), json.dumps(options)]
    done = subprocess.run([sys.executable, "-c", EXPORT, *words], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_an_export_without_data_takes_four_times_its_model_at_most(tmp_path: Path, rng: np.random.Generator) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(layers(rng, *[2236] * 6), model)
    assert model.stat().st_size > 100e6
    assert peak(model) < 4 * model.stat().st_size + FIXED


@pytest.mark.slow
def test_a_calibrated_export_takes_four_times_its_model_at_most(tmp_path: Path, rng: np.random.Generator) -> None:
    model, calib = tmp_path / "model.onnx", tmp_path / "calib.npz"
    onnx.save(layers(rng, *[500] * 101), model)
    np.savez(calib, x=rng.standard_normal((64, 1, 500)).astype(np.float32))
    assert model.stat().st_size > 100e6
    assert peak(model, calib, effort=4, target=8.0) < 4 * model.stat().st_size + FIXED


def test_rounders_that_forget_round_alike(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    # Inputs that depend on each other, as feedback needs.
    graph, mixed = load(layers(rng, 48, 64, 40)), rng.standard_normal((12, 48))
    feeds = [
        {"x": (rng.standard_normal((256, 12)) @ mixed + 0.3 * rng.standard_normal((256, 48))).astype(np.float32)}
        for _ in range(4)
    ]
    statistics = collect(graph, {COVARIANCES, ROW_COUNTS}, feeds)
    evaluator = Mock(effort=EFFORTS[5], statistics=statistics, graph=graph, encoder=Mock(jobs=1))
    forgotten: list[str] = []
    forget = CovarianceRounder.forget
    monkeypatch.setattr(CovarianceRounder, "forget", lambda self: (forgotten.append(self.weight.name), forget(self)))
    found = []
    for most in (1 << 20, 0):
        monkeypatch.setattr(rounding_plans, "ROUNDERS_MAX", most)
        evaluator.findings = Findings()
        plans = RoundedPlans(evaluator)
        found.append([plans.plan(name, GridPlan(step)).matrix for name in ("w0", "w1") for step in (0.05, 0.2)])
    assert forgotten == ["w0", "w0", "w1", "w1"]
    for kept, again in zip(*found, strict=True):
        assert np.array_equal(kept.integers, again.integers)
        assert kept.step == again.step


@pytest.mark.parametrize(("largest", "kind"), [(127, np.int8), (128, np.int16), (32767, np.int16), (32768, np.int32)])
def test_integers_are_kept_in_the_narrowest_type_and_coded_alike(
    largest: int, kind: type, rng: np.random.Generator
) -> None:
    integers = rng.integers(-3, 4, (40, 50)).astype(np.int32)
    integers[0, 0] = -largest
    matrix, graph = QuantizedMatrix(integers, 0.25), graph_of(w=rng.standard_normal((40, 50)).astype(np.float32))
    narrow = GridPlan.of_narrow(matrix)
    assert narrow.matrix is not None
    assert narrow.matrix.integers.dtype == kind
    codec, weight = GridCodec(), graph.weights["w"]
    coded = [codec.encode([codec.prepare(weight, plan, 0)]).chunks for plan in (narrow, GridPlan.of(matrix))]
    assert coded[0] == coded[1]
