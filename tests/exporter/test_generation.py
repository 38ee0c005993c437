"""Decoders that travel with a description of text generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import seed_runtime
from seed_runtime.errors import InputError
from seed_runtime.processing.generation import Generator, Tokenizer
from tests.exporter.support.exporting import quick_export
from tests.support.decoder_model import decoder, description, tokenizer_json

pytest.importorskip("tokenizers")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "decoder.onnx"
    onnx.save(decoder(), path)
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json())
    return path


def exported(model: Path, processing: Path | None) -> seed_runtime.Seed:
    target = model.with_suffix(".seed")
    quick_export(model, target, method="lossless", processing=processing)
    return seed_runtime.open(target)


def described(folder: Path, **changes: Any) -> Path:
    path = folder / "processing.json"
    path.write_text(json.dumps({"generation": description(**changes)}))
    return path


def test_a_decoder_writes_text_from_its_seed(model: Path, tmp_path: Path) -> None:
    seed = exported(model, described(tmp_path))
    steps = seed.processing()
    assert steps is not None
    assert steps.generation is not None
    generator = Generator(steps.generation, Tokenizer(steps.generation.tokenizer), "hello")
    with seed.session(threads=1) as session:
        text = "".join(generator.run(session.run_into))
    assert (len(text), generator.stop) == (12, "max tokens")


def test_a_description_of_another_decoder_ends_the_export(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model has no input 'past_key_values.9.key'; see docs/processing.md"):
        exported(model, described(tmp_path, past={"past_key_values.9.key": "present.9.key"}))
