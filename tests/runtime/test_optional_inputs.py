"""Inputs with a default: a run may leave them out or give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.backends import TensorSpec
from seed_runtime.errors import InputError
from seed_runtime.serve import ServedModel
from seed_runtime.serve.protocol import read_request
from tests.runtime.serve.support.serving import tensor
from tests.support.model_seeds import with_gain
from tests.support.seed_run import refused, result, seed_run

X = np.ones((2, 4), np.float32)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "gain.seed"
    path.write_bytes(with_gain())
    return path


def test_a_session_takes_it_or_its_default(seed: Path, tmp_path: Path) -> None:
    opened = seed_runtime.open(seed)
    assert [spec.name for spec in opened.inputs()] == ["x"]
    assert opened.optional_inputs() == (TensorSpec("gain", "float32", (1,)),)
    with opened.session(cache=ModelCache(tmp_path / "cache", 1 << 30)) as session:
        assert session.verify().ok
        assert (session.run({"x": X})["y"] == 2).all()
        assert (session.run({"x": X, "gain": np.full(1, 5, np.float32)})["y"] == 5).all()
        assert session.optional_inputs == opened.optional_inputs()
        with pytest.raises(InputError, match=r"'gain': gain: float32\[1\] is expected, float32\[2\] was given"):
            session.run({"x": X, "gain": np.ones(2, np.float32)})
        with pytest.raises(InputError, match=r"no input 'z'; it expects x: .*, optionally gain: float32\[1\]"):
            session.run({"x": X, "z": X})
        with pytest.raises(InputError, match="input 'x' is missing"):
            session.run({"gain": np.ones(1, np.float32)})


@pytest.mark.parametrize(("more", "y"), [({}, 2), ({"gain": np.full(1, 3, np.float32)}, 3)])
def test_a_data_file_may_hold_it(seed: Path, tmp_path: Path, more: dict[str, Any], y: int) -> None:
    np.savez(tmp_path / "x.npz", x=X, **more)
    assert seed_run(seed, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz").returncode == 0
    assert (np.load(tmp_path / "y.npz")["y"] == y).all()


def test_a_data_file_without_the_others_is_refused(seed: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", gain=np.ones(1, np.float32))
    assert "optionally gain: float32[1]" in refused(3, seed, "--input", tmp_path / "x.npz")


def test_inspect_lists_it_apart(seed: Path) -> None:
    found = result(seed, "--inspect")
    assert [each["name"] for each in found["inputs"]] == ["x"]
    assert found["optional_inputs"] == [{"name": "gain", "dtype": "float32", "shape": [1]}]
    assert "optional  gain: float32[1]" in seed_run(seed, "--inspect").stdout.decode()


def test_a_request_may_hold_it_and_the_servers_metadata_says_so() -> None:
    gain = TensorSpec("gain", "float32", (1,))
    model = ServedModel("m", "1", (TensorSpec("x", "float32", ("n", 4)),), (), lambda feeds: {}, (gain,))
    assert model.metadata()["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "gain", "datatype": "FP32", "shape": [1], "optional": True},
    ]
    for extra in ([], [tensor("gain", np.ones(1, np.float32), "FP32")]):
        body = json.dumps({"inputs": [tensor("x", X, "FP32"), *extra]}).encode()
        assert len(read_request(bytearray(body), len(body), model).feeds) == 1 + len(extra)
