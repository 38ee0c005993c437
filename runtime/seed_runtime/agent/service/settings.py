"""The settings of a model's service, as they are in service.json beside the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seed_runtime.agent.store.installed_model import SERVICE_FILE
from seed_runtime.stored_bases import SEED_FILE
from seed_runtime.system import paths
from seed_runtime.system.files import atomic_write

if TYPE_CHECKING:
    from seed_runtime.agent.store.store import Store

_FILE_MAX: Final = 1 << 16
"""Bytes read of service.json."""


@dataclass(frozen=True)
class Service:
    """A service. Sizes are in bytes."""

    unit: str
    """Name of the service's unit."""
    asked: str
    """The address that was asked for: "unix", or a loopback address with its port."""
    address: str
    """Address on which the service listens."""
    memory_asked: int | None
    """MemoryMax= that was asked for."""
    max_memory: int | None
    """--max-memory of the server; None if the seed holds no measurements."""
    memory_max: int | None
    """MemoryMax= of the unit, which is plan.MARGIN above that."""
    linger: bool
    """True if the service runs without anybody logged in."""
    installing: bool = False
    """True while the service's first start is under way, and if that was never completed."""


def read(store: Store, name: str) -> Service | None:
    """Return the service of a model; None if there is none or its file can't be read."""
    try:
        with file_path(store, name).open("rb") as file:
            found = json.loads(file.read(_FILE_MAX))
        return Service(**{key: found[key] for key in Service.__dataclass_fields__ if key in found})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(store: Store, name: str, service: Service) -> None:
    """Replace service.json of a model."""
    with atomic_write(file_path(store, name)) as file:
        file.write(json.dumps(asdict(service), sort_keys=True).encode() + b"\n")


def file_path(store: Store, name: str) -> Path:
    """Return where service.json of a model is."""
    return store.model(name).folder / SERVICE_FILE


def unit_name(name: str) -> str:
    """Return the name of the unit for a model."""
    return f"seed-{name}.service"


def unit_path(unit: str) -> Path:
    """Return where the file of a unit is."""
    return paths.config_home().parent / "systemd" / "user" / unit


def current_seed(store: Store, name: str) -> Path:
    """Return the path of a model's current seed: through `current`, so that it is another one after a switch."""
    return store.model(name).link / SEED_FILE
