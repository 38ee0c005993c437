"""What is told of the models on this device, in lines that the protocol can carry however much there is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from seed_runtime.agent.protocol import LINE_MAX
from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.installed_model import Model
from seed_runtime.errors import SeedError

_ROOM: Final = LINE_MAX // 4
"""Bytes that one list of an answer may take; an answer has two at most, and little else."""
_TOLD: Final = (
    "digest", "model_id", "model_version", "bytes", "weights_bytes", "pushed", "golden", "golden_distance",
    "planned_bytes", "backend",
)  # fmt: skip
"""Fields of record.json that are told."""

_HERE: Final = os.path.realpath(sys.prefix)
"""The folder of this runtime: what `current` led to at the start."""

Item = TypeVar("Item")


def describe(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Each model and its versions, the newest first. Where they are too many, `left_out` counts those not listed."""
    told, room = [], _ROOM
    for model in models:
        entry, digests = _describe(model)
        room -= _size(entry)
        for number, digest in enumerate(digests):
            version = _version(model, digest, entry["current"])
            # What runs is told in any case.
            if (room := room - _size(version)) < 0 and not version["running"]:
                entry["left_out"] = len(digests) - number
                break
            entry["versions"].append(version)
        told.append(entry)
    return told


def newest(items: Sequence[Item]) -> list[Item]:
    """The last ones, as many as an answer can carry."""
    room, first = _ROOM, len(items)
    while first and (room := room - _size(items[first - 1])) >= 0:
        first -= 1
    return list(items[first:])


def existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    while not path.is_dir() and path.parent != path:
        path = path.parent
    return path


def is_stale(pid: int | None) -> bool:
    """Whether this process runs from another runtime than this one does; False where that can't be told."""
    if not pid:
        return False
    try:
        program = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0])
    except OSError:
        return False
    return bool(program) and os.path.realpath(os.path.dirname(os.path.dirname(program))) != _HERE


def _describe(model: Model) -> tuple[dict[str, Any], list[str]]:
    running, lines, digests = model.running, history.read(model.folder), model.digests()
    pushing = model.pushing()
    service = None
    if model.has_service:
        from seed_runtime.agent.service import service as unit

        try:
            service = unit.status(model.store, model.name)
            if service is not None:
                service["stale"] = is_stale(service["pid"])
        except (SeedError, OSError) as error:
            service = {"error": str(error)}
    order = history.newest_first(lines, digests)
    if running is not None:
        order.remove(running)
        order.insert(0, running)
    return {
        "name": model.name,
        "current": running,
        "previous": history.previous(lines, running, digests),
        "service": service,
        "versions": [],
        "partial": model.store.part(pushing).stat().st_size if pushing else None,
        "partial_digest": pushing,
        "last": lines[-1] if lines else None,
    }, order


def _version(model: Model, digest: str, running: str | None) -> dict[str, Any]:
    record = model.record(digest)
    return {
        **{key: record[key] for key in _TOLD if key in record},
        "running": digest == running,
        "intact": partial.looks_whole(model.seed(digest), digest),
    }


def _size(item: Any) -> int:
    return len(json.dumps(item))
