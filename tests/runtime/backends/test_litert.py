"""LiteRT as a backend: outputs, free sizes, and what is refused by name."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime import backends
from seed_runtime.backends import litert
from seed_runtime.errors import FormatError, InputError, UnsupportedError
from tests.support.project import ROOT
from tests.support.seed_run import result
from tests.support.tflite_bytes import WEIGHT, Scalar, code, model, numbers, operator, tensor

MODES = litert.BACKEND.modes
PACKAGES = [name for name in litert.PACKAGES if name == "ai_edge_litert" or np.__version__ < "2"]
SEED = ROOT / "tests" / "conformance" / "seeds" / "tflite-one.seed"
X = np.arange(16, dtype=np.float32)


def folder_of(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "model.tflite").write_bytes(data)
    return tmp_path


@pytest.fixture(params=PACKAGES)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with each package that is here, as if it were the only one. `make test-oldest` has both."""
    pytest.importorskip(request.param, reason="LiteRT is not installed: pip install 'seed-runtime[tflite]'")
    for other in litert.PACKAGES:
        if other != request.param:
            monkeypatch.setitem(sys.modules, other, None)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("mode", MODES)
def test_a_model_computes_what_it_says(mode: str, tmp_path: Path) -> None:
    runner = backends.get("litert").open(folder_of(tmp_path, model()), mode, 1)
    found = runner.run({"x": X})
    assert list(found) == ["y"]
    np.testing.assert_array_equal(found["y"], X + np.array(WEIGHT, np.float32))
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        runner.run({"x": X})


@pytest.mark.usefixtures("_library")
def test_a_seed_runs_from_the_command_line_with_the_package_that_is_there(
    own_folders: Path, request: pytest.FixtureRequest
) -> None:
    np.savez(own_folders / "x.npz", x=X)
    found = result(SEED, "--input", own_folders / "x.npz", "--output", own_folders / "y.npz")
    assert found["mode"] in MODES
    with np.load(own_folders / "y.npz") as outputs:
        np.testing.assert_array_equal(outputs["y"], X + np.array(WEIGHT, np.float32))
    name = litert.PACKAGES[request.node.callspec.params["_library"]]
    assert litert.BACKEND.version() == metadata.version(name)


def test_tflite_runtime_beside_numpy_2_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there if name == "tflite_runtime" else None)
    monkeypatch.setattr(np, "__version__", "2.0.1")
    assert not litert.BACKEND.available()
    with pytest.raises(UnsupportedError, match=r"with NumPy 1 and this is NumPy 2\.0\.1; install .* ai-edge-litert"):
        backends.get("litert").open(folder_of(tmp_path, model()), "fast")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert litert.BACKEND.available()


@pytest.mark.usefixtures("_library")
def test_a_free_size_follows_the_feeds(tmp_path: Path) -> None:
    free = {7: numbers([-1, 16])}
    tensors = [tensor([1, 16], 0, "x", more=free), tensor([16], 1, "weight"), tensor([1, 16], 0, "y", more=free)]
    runner = backends.get("litert").open(folder_of(tmp_path, model(tensors=tensors)), "lean", 1)
    for rows in (1, 3, 2):
        given = np.ones((rows, 16), np.float32)
        np.testing.assert_array_equal(runner.run({"x": given})["y"], given + np.array(WEIGHT, np.float32))
    assert str(runner.inputs[0]) == "x: float32[?, 16]"


@pytest.mark.usefixtures("_library")
def test_values_between_operators_can_be_seen(tmp_path: Path) -> None:
    tensors = [tensor([16], 0, "x"), tensor([16], 1, "w"), tensor([16], 0, "y"), tensor([16], 0, "h")]
    data = model(tensors=tensors, operators=[operator(0, [0, 1], [3]), operator(0, [3, 1], [2])])
    runner = litert.BACKEND.open_preserving(folder_of(tmp_path, data), 1)
    runner.run({"x": X}, [])
    np.testing.assert_array_equal(runner.inner(3), X + np.array(WEIGHT, np.float32))


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(
    ("feeds", "problem"),
    [
        ({}, "input 'x' is missing"),
        ({"x": X[:8]}, "axis 0 must be 16"),
        ({"x": X.astype(np.float64)}, "convert it with"),
        ({"x": X * np.float32(np.nan)}, "NaN"),
        ({"x": X, "z": X}, "no input 'z'"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(feeds: backends.Feeds, problem: str, tmp_path: Path) -> None:
    runner = backends.get("litert").open(folder_of(tmp_path, model()), "lean", 1)
    with pytest.raises(InputError, match=problem):
        runner.run(feeds)


@pytest.mark.usefixtures("_library")
def test_an_output_that_is_not_there_is_refused(tmp_path: Path) -> None:
    runner = backends.get("litert").open(folder_of(tmp_path, model()), "lean", 1)
    with pytest.raises(InputError, match="no output 'z'; it has y"):
        runner.run({"x": X}, ["z"])


def test_custom_operators_are_named_before_anything_is_imported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="only its maker's programs have: Mine; write the model") as caught:
        backends.get("litert").open(folder_of(tmp_path, model(codes=[code(32, "Mine")])), "fast")
    assert caught.value.exit_code == 12


def test_a_model_that_lies_is_refused_before_litert_sees_it(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nothing before it makes"):
        backends.get("litert").open(folder_of(tmp_path, model(operators=[operator(0, [2], [2])])), "fast")
    with pytest.raises(UnsupportedError, match="is empty"):
        backends.get("litert").open(folder_of(tmp_path, b""), "fast")


@pytest.mark.usefixtures("_library")
def test_texts_are_no_inputs(tmp_path: Path) -> None:
    tensors = [tensor([1], 0, "x", 5), tensor([16], 1, "w"), tensor([1], 0, "y", 5)]
    data = model(tensors=tensors, operators=[operator(0, [0], [2])], codes=[code(22)])
    with pytest.raises(UnsupportedError, match=r"of the type string|can't take this model"):
        backends.get("litert").open(folder_of(tmp_path, data), "lean", 1)


def test_the_package_to_install_is_named_where_none_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not litert.BACKEND.available()
    with pytest.raises(UnsupportedError, match="pip install ai-edge-litert") as caught:
        backends.get("litert").open(folder_of(tmp_path, model()), "fast")
    assert caught.value.exit_code == 12


def test_tflite_models_are_not_trained_on_devices(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="can't be trained"):
        backends.get("litert").open_joined(b"", tmp_path)


@pytest.mark.usefixtures("_library")
def test_a_model_that_litert_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    # An operator of the wrong number of inputs, which its kernel finds.
    data = model(operators=[{**operator(0, [0], [2]), 3: Scalar("B", 0)}])
    with pytest.raises(UnsupportedError, match="LiteRT can't take this model"):
        backends.get("litert").open(folder_of(tmp_path, data), "lean", 1)


def test_a_seed_of_a_tflite_model_says_that_it_has_no_training_graph_to_export() -> None:
    seed = seed_runtime.open(SEED)
    with pytest.raises(UnsupportedError, match="a TFLite model, which can't be trained on a device; export an ONNX"):
        seed.training_graph()
