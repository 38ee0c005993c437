"""Check everything that a device sends: its text holds nothing that a terminal obeys, its fields have their types.

A device may be hostile, damaged or of another version: nothing that it sends is rendered, compared or made a part of a
command before it passed through here. Fields that aren't in the tables are left out, so that nothing else needs to look
at them. A wrong value is a RemoteError, of that device alone. The agent's own table is
`seed_runtime.agent.protocol.schema`; the programs that this host sends to a device have theirs here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_devices.terminal_text import plain
from seed_runtime.agent.protocol.checks import (
    Check,
    boolean,
    count,
    ignored,
    lenient_record,
    list_of,
    mapping_of,
    name,
    optional,
    record,
    text,
)
from seed_runtime.agent.protocol.schema import FACTS, OPERATIONS

INSTALLER: Final[Mapping[str, Mapping[str, Check]]] = {
    "prepare": {
        "state": text, "path": optional(text), "version": optional(text),
        "missing": optional(mapping_of(text, record(path=text, have=count))),
    },
    "place": {"good": boolean, "path": text},
    "room": {"free": count},
    "install": {"path": text, "version": text},
}  # fmt: skip
"""Fields of the answers of installer.py, by operation."""

PYTHON: Final[Mapping[str, Check]] = {
    "path": text, "real": text, "version": list_of(count), "bits": count, "missing": list_of(text),
    "numpy": optional(text),
}  # fmt: skip
"""Fields of what a Python of the device says about itself, see pythons.py."""

VERIFIED: Final[Mapping[str, Check]] = {
    "ok": optional(boolean), "golden": optional(boolean), "error": optional(text),
}  # fmt: skip
"""Fields that are used of what `seed-run --verify --json` prints."""

FINDINGS: Final[Mapping[str, Check]] = {
    "user": optional(text), "linked": optional(boolean), "starts": optional(text),
    "status": optional(record(**OPERATIONS["status"].answer)), "status_error": optional(text),
    "leftovers": optional(list_of(record(kind=text, path=text, bytes=count))),
    "signers": optional(boolean), "linger": optional(boolean), "services": optional(mapping_of(name, ignored)),
}  # fmt: skip
"""Fields that health.py prints."""


def parse_object(line: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object of a line, all text in it made `plain`; None for anything else."""
    try:
        found = _plain_all(json.loads(line))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_answer(host: str, fields: Mapping[str, Check], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of an answer.

    Args:
        host: the device, for messages.
        fields: the table of the answer.
        answer: the answer, as `parse_object` gives it.

    Raises:
        RemoteError: a field has a value of the wrong kind.
    """
    try:
        return record(**fields)(answer)
    except ValueError as error:
        raise RemoteError(
            1, f"{host}: its answer can't be used: {error}; see: seed-deploy doctor {shlex.quote(host)}"
        ) from None


def usable_facts(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known facts with right values; a fact with a wrong value counts as not found out."""
    return lenient_record(**FACTS)(sent)


def _plain_all(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_plain_all(each) for each in value]
    if isinstance(value, dict):
        return {plain(key): _plain_all(each) for key, each in value.items()}
    return value
