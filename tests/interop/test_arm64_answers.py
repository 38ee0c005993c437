"""Seeds that answer people, and those of TFLite, on arm64: the same bytes, labels and tokens as on x86-64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from tests.exporter.support.exporting import quick_export
from tests.support.decoder_model import decoder_seed
from tests.support.described_models import color_seed, png
from tests.support.seed_run import result
from tests.support.tflite_bytes import model

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

Arm64 = Callable[..., str]


def _there(arm64: Arm64, *arguments: str | Path) -> Any:
    return json.loads(arm64("-m", "seed_runtime.cli", *map(str, arguments), "--quiet", "--json"))


def test_a_seed_of_tflite_gives_the_file_back_and_runs_in_litert(arm64: Arm64, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")
    source, seed = tmp_path / "m.tflite", tmp_path / "m.seed"
    source.write_bytes(model())
    quick_export(source, seed, method="lossless")
    assert seed_runtime.open(seed).header.golden is not None
    verified = _there(arm64, seed, "--verify")
    assert (verified["ok"], verified["golden"]) == (True, True)
    _there(arm64, seed, "--assemble", tmp_path / "there")
    assert (tmp_path / "there" / "model.tflite").read_bytes() == source.read_bytes()


def test_a_photo_has_the_same_labels(arm64: Arm64, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    seed, photo = tmp_path / "colors.seed", tmp_path / "photo.png"
    seed.write_bytes(color_seed())
    photo.write_bytes(png(8, 6, (0, 255, 30)))
    here, there = (found["answers"][0]["outputs"] for found in (result(seed, photo), _there(arm64, seed, photo)))
    assert [each["label"] for each in there[0]["labels"]] == [each["label"] for each in here[0]["labels"]]
    assert [each["score"] for each in there[0]["labels"]] == pytest.approx(
        [each["score"] for each in here[0]["labels"]], rel=1e-4
    )


def test_a_prompt_is_continued_by_the_same_tokens(arm64: Arm64, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    seed = tmp_path / "decoder.seed"
    seed.write_bytes(decoder_seed())
    arguments = (seed, "--prompt", "hello", "--max-tokens", "8")
    assert _there(arm64, *arguments)["tokens"] == result(*arguments)["tokens"]
