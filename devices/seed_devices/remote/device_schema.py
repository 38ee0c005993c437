"""What a device tells, taken in: its text without anything that moves a terminal, its fields with their types.

A device may lie, be damaged or have another version: nothing that it tells is rendered, compared or made a part of a
command before it went through here. Fields that aren't in the tables are left out, so nothing else needs to look at
them. What is wrong is a RemoteError, of that device alone.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_runtime.agent.store.installed_model import DIGEST, NAME
from seed_runtime.format.primitives import printable

Kind = Callable[[Any], Any]
"""Returns the value as it is to be used; ValueError for one of another kind."""

_COUNT_MAX: Final = (1 << 64) - 1
"""systemd tells this for memory that nobody counts."""
_CLOCK_MAX: Final = 1 << 36
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SHOWN: Final = 40


def plain(text: str) -> str:
    """One line of text that a terminal shows and doesn't obey; white space becomes spaces, the rest "?"."""
    if printable(text) and not _SURROGATE.search(text):
        return text
    return "".join(map(_plain_letter, text))


def plain_lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(map(plain, re.split("\r\n|\r|\n", text)))


def read(line: bytes | str) -> dict[str, Any] | None:
    """The JSON object of a line, all text in it `plain`; None for anything else."""
    try:
        found = _plain_all(json.loads(line))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def checked(host: str, fields: Mapping[str, Kind], answer: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of an answer. RemoteError for one that is of another kind."""
    try:
        return table(**fields)(answer)
    except ValueError as error:
        raise RemoteError(
            1, f"{host}: what it tells can't be used: {error}; see: seed-deploy doctor {shlex.quote(host)}"
        ) from None


def facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """The known facts that are of their kind; the others count as not found out."""
    found = {}
    for key, kind in _FACTS.items():
        if key in told:
            try:
                found[key] = maybe(kind)(told[key])
            except ValueError:
                continue
    return found


# Kinds


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value)
    return value


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value)
    return value


def count(value: Any) -> int:
    # True is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
        raise _wrong(value)
    return value


def real(value: Any) -> float:
    return value if isinstance(value, float) else count(value)


def name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise _wrong(value)
    return value


def digest(value: Any) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise _wrong(value)
    return value


def maybe(kind: Kind) -> Kind:
    return lambda value: None if value is None else kind(value)


def many(kind: Kind) -> Kind:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong(value)
        return [kind(one) for one in value]

    return check


def by_key(key: Kind, kind: Kind) -> Kind:
    def check(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise _wrong(value)
        return {key(one): kind(held) for one, held in value.items()}

    return check


def table(**fields: Kind) -> Kind:
    """An object; what may be None may be left out, and is left out then."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(value)
        found = {}
        for key, kind in fields.items():
            try:
                taken = kind(value.get(key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
            if key in value:
                found[key] = taken
        return found

    return check


def ignored(value: Any) -> None:
    return None


_LINE: Final = table(time=maybe(text), what=maybe(text), digest=maybe(text), result=maybe(text))
_SERVICE: Final = table(
    unit=maybe(text), asked=maybe(text), address=maybe(text), memory_asked=maybe(count), max_memory=maybe(count),
    memory_max=maybe(count), linger=maybe(truth), active=maybe(text), pid=maybe(count), restarts=maybe(count),
    memory_current=maybe(count), hint=maybe(text), error=maybe(text), stale=maybe(truth),
    installing=maybe(truth),
)  # fmt: skip
_RECORD: Final[Mapping[str, Kind]] = {
    "digest": digest, "model_id": maybe(text), "model_version": maybe(count), "bytes": maybe(count),
    "weights_bytes": maybe(count), "pushed": maybe(text), "golden": maybe(truth), "golden_distance": maybe(real),
    "planned_bytes": maybe(count), "backend": maybe(text),
}  # fmt: skip
_MODEL: Final = table(
    name=name, current=maybe(digest), previous=maybe(digest), service=maybe(_SERVICE),
    versions=maybe(many(table(**_RECORD, running=maybe(truth), intact=maybe(truth)))),
    partial=maybe(count), partial_digest=maybe(digest), last=maybe(_LINE), left_out=maybe(count),
)  # fmt: skip
_STATUS: Final[Mapping[str, Kind]] = {
    "models": maybe(many(_MODEL)), "runtime": maybe(text), "disk_free": maybe(count)
}  # fmt: skip

OPERATIONS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "facts": {"facts": lambda told: facts(by_key(text, lambda value: value)(told))},
    "status": _STATUS,
    "begin": {
        "state": maybe(text), "have": maybe(count), "path": maybe(text), "tail": maybe(many(text)),
        "block": maybe(count),
    },
    "resume": {"have": maybe(count)},
    "install": {
        "record": maybe(table(**_RECORD)), "seconds": maybe(by_key(text, real)), "peak_rss": maybe(count)
    },
    "switch": {"previous": maybe(digest), "removed": maybe(many(digest))},
    "rollback": {"current": maybe(digest), "previous": maybe(digest)},
    "remove": {"removed": maybe(many(digest)), "bytes": maybe(count)},
    "log": {"lines": maybe(many(_LINE)), "service": maybe(many(text))},
    "service": {"service": maybe(_SERVICE)},
    "release": {},
}  # fmt: skip
"""What the agent answers to each operation (seed_runtime/agent/operations.py)."""

INSTALLER: Final[Mapping[str, Mapping[str, Kind]]] = {
    "prepare": {
        "state": text, "path": maybe(text), "version": maybe(text),
        "missing": maybe(by_key(text, table(path=text, have=count))),
    },
    "place": {"good": truth, "path": text},
    "room": {"free": count},
    "install": {"path": text, "version": text},
}  # fmt: skip
"""What installer.py answers."""

FINDINGS: Final[Mapping[str, Kind]] = {
    "user": maybe(text), "linked": maybe(truth), "starts": maybe(text), "status": maybe(table(**_STATUS)),
    "status_error": maybe(text), "leftovers": maybe(many(table(kind=text, path=text, bytes=count))),
    "signers": maybe(truth), "linger": maybe(truth), "services": maybe(by_key(name, ignored)),
}  # fmt: skip
"""What health.py prints."""


def _pair(value: Any) -> list[str]:
    found: list[str] = many(text)(value)
    if len(found) != 2:
        raise _wrong(value)
    return found


def _moment(value: Any) -> int:
    if count(value) > _CLOCK_MAX:
        raise _wrong(value)
    return count(value)


_FACTS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("machine", "os", "os_id", "python", "python_path", "numpy", "onnxruntime", "litert"), text),
    **dict.fromkeys(("seed_runtime", "store", "model"), text),
    **dict.fromkeys(("bits", "ram", "ram_available", "cores", "disk_free", "disk_cached"), count),
    **dict.fromkeys(("venv", "ensurepip", "store_writable", "home_writable", "systemd_user", "ssh_keygen"), truth),
    **dict.fromkeys(("signers", "termux"), truth),
    "libc": _pair,
    "clock": _moment,
    "runtime": table(path=text, version=text),
}
"""What facts.py tells (seed_runtime/agent/facts.py)."""


def _wrong(value: Any) -> ValueError:
    shown = json.dumps(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return ValueError(shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...")


def _plain_letter(letter: str) -> str:
    if letter in "\t\r\n":
        return " "
    return letter if printable(letter) and not _SURROGATE.match(letter) else "?"


def _plain_all(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_plain_all(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): _plain_all(one) for key, one in value.items()}
    return value
