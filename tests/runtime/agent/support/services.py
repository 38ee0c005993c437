"""Versions of a model `m` that a service of the device serves, and its unit."""

from __future__ import annotations

import os
from pathlib import Path

from seed_runtime.agent.store.store import Store
from seed_runtime.system.sync import make_folder


def make_current(store: Store, digest: str, data: bytes) -> None:
    """Store a seed as this version of the model, and let it run."""
    model = store.model("m")
    make_folder(store.incoming)
    store.partial_path(digest).write_bytes(data)
    with model.locked(0):
        model.add_version(digest, store.partial_path(digest), {"digest": digest})
        with model.switched_to(digest):
            pass


def unit_file() -> Path:
    """Return where the model's unit is."""
    return Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "seed-m.service"
