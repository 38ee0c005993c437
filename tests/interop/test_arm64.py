"""Seeds on arm64: the weights are the same bits as on x86-64, and the golden sample holds.

QEMU runs arm64 Python as a process, without root and without mounts; `support/arm64.py` says where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import seed_runtime
from seed_runtime.codecs import CODECS
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE
from tests.exporter.support.exporting import dense, layers, quick_export

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

Arm64 = Callable[..., str]
"""Runs arm64 Python with these arguments; returns what it printed."""


def _low_rank(rng: np.random.Generator) -> onnx.ModelProto:
    low = rng.standard_normal((192, 6)) @ rng.standard_normal((6, 192)) / 192**0.5
    return dense([low, rng.standard_normal((192, 96)) / 14], [np.zeros(192) + 0.1, np.zeros(96)])


def _floats(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 96, 160, 40)


def _halves(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 96, 160, 40, dtype=np.float16)


def test_what_runs_is_arm64(arm64: Arm64) -> None:
    printed = arm64("-c", "import numpy, platform; print(platform.machine(), numpy.__version__)")
    assert printed.split() == ["aarch64", version("numpy")]


@pytest.mark.parametrize(
    ("codec", "model", "options"),
    [
        ("grid", _floats, {}),
        ("grid", _halves, {}),
        ("lowrank", _low_rank, {}),
        ("moments", _floats, {"method": "moments", "target": 20.0}),
        ("split", _floats, {"method": "lossless"}),
        ("grid", _floats, {"dtype": "fp16", "target": 6.0}),
        ("integers", _floats, {"dtype": "int4", "target": 6.0}),
    ],
    ids=["grid", "grid-float16", "lowrank", "moments", "split", "held-as-fp16", "held-as-int4"],
)
def test_a_seed_becomes_the_same_bits_on_arm64_and_passes_its_golden_sample(
    codec: str,
    model: Callable[[np.random.Generator], onnx.ModelProto],
    options: dict[str, Any],
    arm64: Arm64,
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    path, here, there = tmp_path / "model.seed", tmp_path / "x86-64", tmp_path / "arm64"
    quick_export(model(rng), path, **options)
    seed = seed_runtime.open(path)
    assert codec in {CODECS[stream.codec].name for stream in seed.header.streams}
    seed.assemble(here)

    command = ["-m", "seed_runtime.cli", str(path), "--quiet"]
    arm64(*command, "--assemble", str(there))
    for name in (MODEL_FILE, WEIGHTS_FILE):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    verified = json.loads(arm64(*command, "--verify", "--json"))
    assert (verified["ok"], verified["golden"]) == (True, True)


def test_layers_of_int8_pass_the_golden_sample_with_and_without_dot_products(
    arm64: Arm64, rng: np.random.Generator, tmp_path: Path
) -> None:
    path = tmp_path / "model.seed"
    quick_export(_floats(rng), path, dtype="int8", target=6.0)
    for cpu in ("cortex-a53", "cortex-a76"):  # of a Raspberry Pi 3, and of a Pi 5, which has dotprod
        verified = json.loads(arm64("-m", "seed_runtime.cli", str(path), "--quiet", "--verify", "--json", cpu=cpu))
        assert (verified["ok"], verified["golden"]) == (True, True)
