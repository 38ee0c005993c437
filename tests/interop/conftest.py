"""Fixtures of the tests on emulated arm64: what one machine is made of, and one that has the runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.support.arm64 import Processes, UnavailableError
from tests.interop.support.installed import InstalledMachine, installed_machine
from tests.interop.support.machine_image import Image, image
from tests.support.project import ROOT, skip_or_fail
from tests.support.shared import SharedFolder


@pytest.fixture(scope="session")
def arm64() -> Callable[..., str]:
    """Return a function that runs arm64 Python with its arguments, on the core `cpu`, and returns what it printed."""
    try:
        processes = Processes()
    except UnavailableError as error:
        skip_or_fail(f"no arm64 Python here: {error}")
    return lambda *arguments, **options: processes.python(*arguments, paths=[ROOT / "runtime"], **options)


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
