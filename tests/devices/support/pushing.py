"""A push in this process, and what is on the device after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seed_devices.push import preflight
from seed_devices.push.job import Options, PushResult
from seed_devices.push.one_device import push
from seed_devices.ssh.connection import Connection
from tests.devices.support.seeds import EXAMPLE
from tests.devices.support.sshd import Device


def send(device: Device, seed: Path = EXAMPLE, name: str | None = None, **options: Any) -> PushResult:
    """Push a seed; `options` are those of Options."""
    with Connection(device.alias, config=device.config) as connection:
        return push(connection, preflight.load(seed), name, Options(**options))


def running_seed(device: Device, name: str) -> bytes:
    """Return the bytes of the seed that runs."""
    return (device.model(name) / "current" / "model.seed").read_bytes()
