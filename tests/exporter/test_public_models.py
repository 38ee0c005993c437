"""Real models: each is exported, verified as a device does it, and still does its task.

They come from `python -m bench.public prepare NAME`; what isn't prepared is skipped and says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import seed_runtime
from seed_exporter import loaders
from seed_exporter.build.streams import StreamEncoder
from seed_exporter.quantize import lowrank
from tests.exporter.support.exporting import quick_export, uniform
from tests.support.public_models import CACHE, exported, prepared, tasks
from tests.support.shared import SharedFolder

if TYPE_CHECKING:
    from bench.public import PublicModel, Score

pytestmark = pytest.mark.slow
public = tasks()

TOLERANCE = 0.01
"""Largest part of the original's score that a seed may lose."""
LIMITS = {
    "magika": 1000,
    "ppcls": 300,
    "basicpitch": 8,
    "pprec": 150,
    "ppdet": 20,
    "efflite0": 552,
    "minilm6": 250,
    "smollm2": 4,
}
"""Samples of each model's task: scoring original and seed takes some seconds each."""


def score_of(model: PublicModel, path: Path) -> Score:
    try:
        return model.score(CACHE, public.onnx_run(path), LIMITS[model.name])
    except ModuleNotFoundError as error:
        pytest.skip(f"its task needs {error.name}: pip install 'seed-runtime[bench]'")


@pytest.fixture(scope="module", params=list(LIMITS))
def model(request: pytest.FixtureRequest) -> PublicModel:
    prepared(request.param)
    return public.MODELS[request.param]


def test_every_public_model_has_a_limit_here() -> None:
    assert LIMITS.keys() == public.MODELS.keys()


def test_at_the_default_it_verifies_and_keeps_its_score(
    model: PublicModel, shared_folder: SharedFolder, tmp_path: Path
) -> None:
    source = prepared(model.name)
    export = exported(shared_folder, model.name)
    seed = export.seed
    assert export.result["goal_met"]
    kinds = {weight.dtype.name for weight in loaders.load(source).weights.values()}
    if kinds <= {"float32", "int64", "int32"}:
        assert export.result["ratio"] >= 4
    command = [sys.executable, "-m", "seed_runtime.cli", str(seed), "--verify", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert (verdict["ok"], verdict["digest"]) == (True, seed_runtime.open(seed).digest.hex())
    assert verdict["golden"] is True

    seed_runtime.open(seed).assemble(tmp_path / "out")
    original, ours = score_of(model, source), score_of(model, tmp_path / "out" / "model.onnx")
    change = (ours["value"] - original["value"]) / original["value"]
    lost = -change if original["better"] == "higher" else change
    assert lost <= TOLERANCE, model.compare(original, ours)


def test_lossless_gives_the_same_weights_and_the_same_outputs(model: PublicModel, tmp_path: Path) -> None:
    source, seed = prepared(model.name), tmp_path / "model.seed"
    result = quick_export(source, seed, method="lossless")
    assert result.bytes < result.graph.distinct_bytes
    assert all(error.identical for error in result.outputs.values())
    # As any program that has the original and the assembled model: ONNX Runtime as it is, on real inputs.
    seed_runtime.open(seed).assemble(tmp_path / "out")
    try:
        feeds = model.inputs(CACHE, 2, "test")
    except ModuleNotFoundError as error:
        pytest.skip(f"its inputs need {error.name}: pip install 'seed-runtime[bench]'")
    original, ours = public.onnx_run(source), public.onnx_run(tmp_path / "out" / "model.onnx")
    for feed in feeds:
        for theirs, mine in zip(original(feed), ours(feed), strict=True):
            assert np.array_equal(theirs, mine, equal_nan=True)


@pytest.mark.parametrize("target", [6.0, 10.0])
def test_a_target_is_kept_and_used_on_a_real_model(target: float, tmp_path: Path) -> None:
    source, seed = prepared("magika"), tmp_path / "model.seed"
    result = quick_export(source, seed, target=target)
    asked = loaders.load(source).distinct_bytes / target
    assert result.goal_met
    assert 0.97 * asked <= seed.stat().st_size <= asked


@pytest.mark.parametrize(("coarseness", "mantissa_bits"), [(0.1, 23), (1.0, 7)])
def test_the_size_of_each_stream_is_estimated_within_one_percent(
    coarseness: float, mantissa_bits: int, model: PublicModel
) -> None:
    graph = loaders.load(prepared(model.name))
    plans = uniform(graph, coarseness, mantissa_bits)
    plans = lowrank.replace_where_cheaper(graph, plans, lowrank.candidates(graph, plans), jobs=2)
    encoder = StreamEncoder(graph)
    estimated, coded = encoder.estimate(plans), encoder.encode(plans)
    for before, stream in zip(estimated, coded, strict=True):
        assert before.names == stream.names
        assert before.sizes.size == pytest.approx(stream.size, rel=0.01)
    assert sum(encoder.estimate_bytes(plans).values()) == pytest.approx(sum(stream.size for stream in coded), rel=0.01)
