"""What the tests of devices share: one sshd for the whole session, and new devices behind it for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_devices.push.wheels import Wheelhouse
from tests.devices.support import fake_wheels
from tests.devices.support.sshd import Device, MakeDevice, Sshd
from tests.support.shared import SharedFolder
from tests.support.tuned_model import damaged_seed, data

_numbers = itertools.count(1)
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Return the server; devices are made by its `device`."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def make_device(sshd: Sshd) -> MakeDevice:
    """Return a function that makes devices, see Sshd.device; each has an alias that no other worker has."""

    def make(**options: Any) -> Device:
        return sshd.device(f"device{_WORKER}-{next(_numbers)}", **options)

    return make


@pytest.fixture
def device(make_device: MakeDevice) -> Device:
    """Return a device with a runtime and no models."""
    return make_device()


@pytest.fixture
def bare(make_device: MakeDevice, tmp_path: Path) -> Device:
    """Return a device that has a python3 and nothing else."""
    folder = fake_wheels.python_folder(tmp_path / "bin")
    return make_device(runtime=False, environment={"PATH": f"{folder}:/usr/bin:/bin"})


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Wheelhouse:
    """Return the fake wheels of an older runtime."""
    return fake_wheels.house(tmp_path_factory.mktemp("old"), "8.1.2")


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Wheelhouse:
    """Return the fake wheels of a newer runtime."""
    return fake_wheels.house(tmp_path_factory.mktemp("new"), "9.0.0")


@pytest.fixture(scope="session")
def seed_of(shared_folder: SharedFolder) -> Callable[[str], Path]:
    """Return what gives the path of a seed with a training graph, by its damage (`damaged_seed`)."""
    return lambda damage: damaged_seed(shared_folder, damage).path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Return the path of samples for the seeds of `seed_of`."""
    np.savez(tmp_path / "data.npz", **data())
    return tmp_path / "data.npz"
