"""Fixtures of the tests on emulated arm64: what one machine is made of, and one that has the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.support.arm64 import UnavailableError
from tests.interop.support.installed import InstalledMachine, installed_machine
from tests.interop.support.machine_image import Image, image
from tests.support.project import skip_or_fail
from tests.support.shared import SharedFolder


@pytest.fixture(scope="session")
def machine_image() -> Image:
    """Return what whole machines are made of."""
    try:
        return image()
    except UnavailableError as error:
        skip_or_fail(f"no arm64 machine here: {error}")


@pytest.fixture(scope="session")
def installed(machine_image: Image, shared_folder: SharedFolder) -> InstalledMachine:
    """Return a machine that has the runtime and the model `small`."""
    return installed_machine(shared_folder, machine_image)


@pytest.fixture
def small(installed: InstalledMachine) -> Path:
    """Return the seed of the model that is installed there."""
    return installed.seed
