"""Metadata of a model on its way into a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

import seed_runtime
from seed_exporter.loaders import onnx_file
from seed_exporter.report import text
from tests.exporter.support.exporting import layers, quick_export


def test_metadata_that_is_left_out_is_told_in_one_line(tmp_path: Path, rng: np.random.Generator) -> None:
    model = layers(rng, 16, 16)
    helper.set_model_props(model, {"names": "{0: 'cat'}", "ort_config": "{}"})
    result = quick_export(model, tmp_path / "m.seed", method="lossless")
    note = "1 entry of the model's metadata left out: 'ort_config' (ONNX Runtime reads options from it)"
    assert f"note: {note}\n" in text.summary(result)
    assert result.as_json()["notes"] == [note]
    assert seed_runtime.open(tmp_path / "m.seed").metadata() == {"names": "{0: 'cat'}"}


def test_a_note_on_many_entries_says_each_reason_once(rng: np.random.Generator) -> None:
    model = layers(rng, 16, 16)
    helper.set_model_props(model, {f"{index}_path": "x" for index in range(300)} | {"ort_config": "{}"})
    (note,) = onnx_file.load(model).notes
    assert note.startswith("301 entries of the model's metadata left out: '0_path', '1_path', ")
    assert note.endswith(", ... (it names a file), 'ort_config' (ONNX Runtime reads options from it)")
    assert len(note) < 300
