"""Describe the models on this device, in lines that the protocol can carry however many there are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from seed_runtime.agent.protocol.schema import RECORD
from seed_runtime.agent.protocol.transport import LINE_MAX
from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.chains import noted_base
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.tuning_folder import TuningFolder
from seed_runtime.errors import SeedError

_LIST_MAX: Final = LINE_MAX // 4
"""Bytes that one list in an answer may take. An answer has at most two, and little else."""
_OWN_RUNTIME: Final = os.path.realpath(sys.prefix)
"""The folder of this process's runtime: where `runtime/current` led when it started."""

Item = TypeVar("Item")


def describe(models: Iterable[InstalledModel]) -> list[dict[str, Any]]:
    """Return each model with its versions, the newest first.

    Where there are too many versions for one answer, `left_out` counts those that aren't listed. The running version
    is listed in any case.
    """
    described, space = [], _LIST_MAX
    for model in models:
        entry, digests = _describe_model(model)
        space -= _json_size(entry)
        for number, digest in enumerate(digests):
            version = _describe_version(model, digest, entry["current"])
            space -= _json_size(version)
            if space < 0 and not version["running"]:
                entry["left_out"] = len(digests) - number
                break
            entry["versions"].append(version)
        described.append(entry)
    return described


def newest_that_fit(items: Sequence[Item]) -> list[Item]:
    """Return the last items, as many as an answer can carry."""
    space, first = _LIST_MAX, len(items)
    while first and (space := space - _json_size(items[first - 1])) >= 0:
        first -= 1
    return list(items[first:])


def is_stale(pid: int | None) -> bool:
    """Return whether a process runs from another runtime than this one; False if that can't be found out."""
    if not pid:
        return False
    try:
        program = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0])
    except OSError:
        return False
    return bool(program) and os.path.realpath(os.path.dirname(os.path.dirname(program))) != _OWN_RUNTIME


def _describe_model(model: InstalledModel) -> tuple[dict[str, Any], list[str]]:
    """Return a model without its versions, and their digests in the order in which they are listed."""
    running, events, digests = model.running, history.read(model.folder), model.digests()
    partial_digest = model.partial_digest()
    order = history.newest_first(events, digests)
    if running is not None:
        order.remove(running)
        order.insert(0, running)
    return {
        "name": model.name,
        "current": running,
        "previous": history.previous(events, running, digests),
        "service": _describe_service(model) if model.has_service else None,
        "versions": [],
        "partial": model.store.partial_path(partial_digest).stat().st_size if partial_digest else None,
        "partial_digest": partial_digest,
        "last": events[-1] if events else None,
        "tuning_bytes": TuningFolder(model.store.home / "tuning" / model.name).size(),
    }, order


def _describe_service(model: InstalledModel) -> dict[str, Any] | None:
    from seed_runtime.agent.service import service

    try:
        found = service.status(model.store, model.name)
        return None if found is None else {**found, "stale": is_stale(found["pid"])}
    except (SeedError, OSError) as error:
        return {"error": str(error)}


def _describe_version(model: InstalledModel, digest: str, running: str | None) -> dict[str, Any]:
    record = model.record(digest)
    base = noted_base(record)
    return {
        **{key: record[key] for key in RECORD if key in record},
        "base": base,
        "running": digest == running,
        "intact": (base is None or model.has(base)) and partial.looks_whole(model.seed_path(digest), digest),
    }


def _json_size(item: Any) -> int:
    return len(json.dumps(item))
