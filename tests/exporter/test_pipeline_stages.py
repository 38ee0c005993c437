"""What the stages of an export hand on to each other: the original's facts stay what they were at load."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from seed_exporter.evaluate import footprint
from seed_exporter.graph.model import Graph
from seed_exporter.records import Work
from seed_exporter.results import Options
from seed_exporter.skeletons import builder_for
from seed_exporter.stages.fitting import build_and_prove
from seed_exporter.stages.loading import calibrate, load
from seed_exporter.stages.writing import write
from tests.exporter.support.exporting import layers


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 48, 96, 64)


def test_nothing_of_the_original_can_be_changed_once_it_is_loaded(model: onnx.ModelProto, tmp_path: Path) -> None:
    work = Work(Options(), tmp_path, lambda phase, done, total: None)
    loaded = load(model, work)
    reference = loaded.source.reference
    for arrays in (*reference.feeds, *reference.outputs, reference.sample, reference.sample_outputs):
        for array in arrays.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
    with pytest.raises(FrozenInstanceError):
        loaded.source.parameters = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        loaded.graph.weights["w0"] = loaded.graph.weights["w1"]  # type: ignore[index]


def test_ratio_and_error_refer_to_the_original_whatever_a_stage_made_of_the_graph(
    model: onnx.ModelProto, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "measure", lambda *_, **__: None)
    work = Work(Options(target=8.0), tmp_path, lambda phase, done, total: None)
    calibrated = calibrate(load(model, work), work)
    zeroed = {
        name: replace(weight, data=np.zeros_like(weight.data)) for name, weight in calibrated.graph.weights.items()
    }
    edited = Graph(calibrated.graph.model, zeroed)
    proven = build_and_prove(replace(calibrated, graph=edited, skeletons=builder_for(edited)), work)
    result = write(proven, calibrated.source, output, work)
    assert result.parameters == calibrated.graph.parameters
    assert result.ratio == calibrated.graph.distinct_bytes / output.stat().st_size
    assert result.outputs["y"].relative == pytest.approx(1)
