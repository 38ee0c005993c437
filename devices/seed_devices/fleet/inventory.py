"""Read a file that lists devices.

[[host]]
target = "pi@porch.local"     # as on the command line
name = "doorbell"             # the model's name there, if not the seed's own
groups = ["porch", "camera"]

[[host]]
target = "gate"               # an alias of ssh_config
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from seed_devices.fleet.target import Target, parse
from seed_runtime.errors import InputError, UsageError

FILE_MAX: Final = 1 << 20
"""Largest size of an inventory, in bytes."""
HOSTS_MAX: Final = 10_000
"""The most devices in an inventory."""
_KEYS: Final[dict[str, type]] = {"target": str, "name": str, "groups": list}


def load(path: Path, groups: Sequence[str] = ()) -> list[Target]:
    """Read the devices of an inventory, in the file's order.

    Args:
        path: the file.
        groups: return only devices that are in any of these groups; all if there are none.

    Raises:
        InputError: something in the file is wrong; the message names it.
        UsageError: the file can't be read, or doesn't have one of the groups.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX + 1)
        if len(data) > FILE_MAX:
            raise ValueError(f"it has more than {FILE_MAX:,} bytes")
        table = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give another path with --inventory") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; correct it") from None
    entries = table.pop("host", [])
    if table or not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        wrong = f"{next(iter(table))!r} is no key of it" if table else "it lists no [[host]]"
        raise InputError(f'{path}: {wrong}; write [[host]] and target = "user@host" for each device')
    if len(entries) > HOSTS_MAX:
        raise InputError(f"{path}: {len(entries):,} hosts exceed the limit of {HOSTS_MAX:,}; split it")
    found: dict[Target, None] = {}
    known: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        target, own = _host(f"{path}, host {number}", entry)
        known |= own
        if not groups or own & set(groups):
            if target in found:
                raise InputError(f"{path}, host {number}: {target} stands twice; remove one of them")
            found[target] = None
    if unknown := sorted(set(groups) - known):
        raise UsageError(f"{path} has no group {unknown[0]}; it has: {', '.join(sorted(known)) or 'none'}")
    return list(found)


def _host(where: str, entry: dict[str, Any]) -> tuple[Target, set[str]]:
    for key, value in entry.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise InputError(f"{where}: {key!r} is no key of a host; it takes {', '.join(_KEYS)}")
        texts = value if isinstance(value, list) else [value]
        if not isinstance(value, kind) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{where}: {key} must be {'a list of texts' if kind is list else 'a text'}; correct it")
    if "target" not in entry:
        raise InputError(f'{where}: it has no target; write target = "user@host"')
    try:
        return parse(entry["target"], entry.get("name")), set(entry.get("groups", ()))
    except UsageError as error:
        raise InputError(f"{where}: {error}") from None
