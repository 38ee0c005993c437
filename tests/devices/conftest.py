"""What the tests of devices share: one sshd for the whole session, and a new device behind it for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.devices.support.sshd import Device, Sshd

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Return the server; devices are made by its `device`."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def device(sshd: Sshd) -> Device:
    """Return a device of the test's own, with a runtime and no models."""
    return sshd.device(f"device{next(_numbers)}")
