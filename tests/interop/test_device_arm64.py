"""Push, update, rollback and doctor against a real sshd in front of an arm64 userland, and public models there."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE
from tests.devices.support.sshd import Device, Sshd
from tests.exporter.support.exporting import layers, quick_export
from tests.interop.support import userland
from tests.interop.support.arm64 import UnavailableError
from tests.interop.support.machines import deploy, deploy_json
from tests.support.project import skip_or_fail
from tests.support.public_models import exported
from tests.support.shared import SharedFolder

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.network]

TOLERANCE = 1e-4
MODELS = ("basicpitch", "efflite0", "magika", "minilm6", "ppcls", "ppdet", "pprec", "smollm2")
RUNTIME = ".local/share/seed/runtime/current"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two versions of one model."""
    folder = tmp_path_factory.mktemp("seeds")
    paths = [folder / "v1.seed", folder / "v2.seed"]
    for version, path in enumerate(paths, 1):
        model = layers(np.random.default_rng(version), 64, 256, 32)
        quick_export(model, path, model_id="doorbell", model_version=version)
    return paths


@pytest.fixture(scope="module")
def device(seeds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Push the first version to a fresh userland, which installs the runtime's wheel there."""
    try:
        root = userland.root()
    except UnavailableError as error:
        skip_or_fail(f"no arm64 userland here: {error}")
    server = Sshd(tmp_path_factory.mktemp("arm64-sshd"))
    try:
        device = userland.device(server, "userland", root)
        (pushed,) = deploy_json(device.config, "push", str(seeds[0]), device.alias)["hosts"]
        assert (pushed["state"], pushed["runtime_installed"]) == ("pushed", True)
        assert pushed["record"]["golden"] is True
        yield device
    finally:
        server.stop()


def _answers_as(device: Device, seed: Path, rng: np.random.Generator) -> bool:
    feeds = {"x": rng.standard_normal((2, 64)).astype(np.float32)}
    file = io.BytesIO()
    np.savez(file, **feeds)
    target = f"{device.alias}:doorbell"
    there = deploy(device.config, "run", target, "--input", "-", "--output", "-", stdin=file.getvalue())
    with seed_runtime.open(seed).session() as session, np.load(io.BytesIO(there)) as found:
        here = session.run(feeds)["y"]
        return bool(np.abs(found["y"] - here).max() <= TOLERANCE * np.abs(here).max())


def _there(device: Device, command: str) -> str:
    """Return what a shell command printed there that must succeed."""
    done = subprocess.run(
        ["ssh", "-F", str(device.config), "-o", "BatchMode=yes", device.alias, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command} returned {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_wheel_is_installed_and_runs_as_arm64(device: Device) -> None:
    program = "import os, numpy, onnxruntime, seed_runtime; print(os.uname().machine, seed_runtime.__version__)"
    printed = _there(device, f"{RUNTIME}/bin/python -P -c '{program}'")
    assert printed.split() == ["aarch64", seed_runtime.__version__]


def test_an_update_is_answered_by_the_second_version_and_a_rollback_by_the_first(
    device: Device, seeds: list[Path], rng: np.random.Generator
) -> None:
    assert _answers_as(device, seeds[0], rng)
    (pushed,) = deploy_json(device.config, "push", str(seeds[1]), device.alias)["hosts"]
    assert (pushed["state"], pushed["runtime_installed"]) == ("pushed", False)
    assert _answers_as(device, seeds[1], rng)
    deploy(device.config, "rollback", f"{device.alias}:doorbell")
    assert _answers_as(device, seeds[0], rng)
    (again,) = deploy_json(device.config, "push", str(seeds[1]), device.alias)["hosts"]
    assert (again["state"], again["sent"]) == ("switched", 0)


def test_the_doctor_finds_no_fault_of_the_runtime_or_the_models(device: Device) -> None:
    (found,) = deploy_json(device.config, "doctor", device.alias)["hosts"]
    assert [fault["what"] for fault in found["faults"] if fault["severity"] == "fault"] == []


@pytest.mark.parametrize("name", MODELS)
def test_a_public_model_becomes_the_same_bits_there(
    name: str, device: Device, shared_folder: SharedFolder, tmp_path: Path
) -> None:
    seed = exported(shared_folder, name).seed
    shutil.copy(seed, device.home)
    seed_runtime.open(seed).assemble(tmp_path / name)
    _there(device, f"{RUNTIME}/bin/seed-run {name}.seed --assemble {name} --quiet")
    for file in (MODEL_FILE, WEIGHTS_FILE):
        assert _sha256(device.home / name / file) == _sha256(tmp_path / name / file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
