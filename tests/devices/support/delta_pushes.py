"""Pushes of a seed with others that may be sent in its place, and what a device has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seed_devices.push import preflight
from seed_devices.push.candidates import find_candidates
from seed_devices.push.job import Options, PushResult
from seed_devices.push.one_device import push
from seed_devices.ssh.connection import Connection
from tests.devices.support.sshd import Device

NAME = "product"


def send(device: Device, seed: Path, *deltas: Path, whole: Path | None = None, **options: Any) -> PushResult:
    """Push a seed, with others that may be sent in its place; `options` are those of Options."""
    with Connection(device.alias, config=device.config) as connection:
        return push(connection, find_candidates(preflight.load(seed), deltas, whole), None, Options(**options))


def digest_of(path: Path) -> str:
    return path.read_bytes()[24:56].hex()


def versions_on(device: Device) -> set[str]:
    return {each.name for each in (device.model(NAME) / "versions").iterdir()}


def damage(device: Device, seed: Path) -> None:
    """Change the last byte of a stored version."""
    path = device.model(NAME) / "versions" / digest_of(seed) / "model.seed"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
