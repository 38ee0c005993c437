"""Runs a model of the store as a service of the user's systemd: `seed-run ... --serve` on a socket or a loopback port.

The unit names `current`, so that after a switch a restart serves the other version. It is written anew before each
restart, as another version needs other memory. A service that doesn't become ready leaves the unit as it was before.
What the unit and service.json allow is never less than `current` needs, at any moment of a power cut: `make_room`
comes before a switch, `restart` after it. service.json is there before its unit is and until it is gone, so that what a
kill leaves of an installation is known as a service: the next switch completes it, `remove` takes it away. Who calls
this holds the model's lock.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import re
import socket
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_runtime import serve
from seed_runtime.agent.service import systemd
from seed_runtime.agent.store.installed_model import SEED_FILE
from seed_runtime.errors import UsageError
from seed_runtime.system import paths
from seed_runtime.system.files import atomic_write

if TYPE_CHECKING:
    from seed_runtime.agent.store.store import Store

MARGIN: Final = 32 << 20
"""MemoryMax= above --max-memory: the kernel also counts socket buffers, page tables and the page cache [B]."""
PLAN_S: Final = 120.0
READY_S: Final = 10.0
"""How long a server that says it is ready may take to answer."""
_FILE: Final = "service.json"
_FILE_MAX: Final = 1 << 16
_SETTINGS: Final = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "SEED_HOME", "SEED_CACHE_LIMIT")
_CODES: Final = {3, 10, 11, 12, 13, 14}
"""Exit codes of seed-run that say what is wrong, and that another start would end with as well."""


@dataclass(frozen=True)
class Service:
    """What service.json holds. Sizes in bytes."""

    unit: str
    asked: str
    """"unix", or a loopback address with its port."""
    address: str
    memory_asked: int | None
    max_memory: int | None
    """--max-memory of the server, None where nothing was measured."""
    memory_max: int | None
    """MemoryMax= of the unit, which is MARGIN above it."""
    linger: bool
    """Whether it runs without anybody logged in."""
    installing: bool = False
    """Whether its first start is under way, or was never completed."""


def install(store: Store, name: str, address: str | None = None, memory_max: int | None = None) -> dict[str, Any]:
    """Serve the current version of `name`, now and after each start of the device; answers once it is ready.

    Args:
        address: "unix" (the default) for a socket in the user's runtime folder, or a loopback address and port.
        memory_max: what the kernel lets the service have, None for what its largest measured input needs, of at most
            three quarters of the device's memory [B].

    UsageError for another address. ServiceError where the model can't run within `memory_max`, where no user manager
    runs, or where the service doesn't become ready: then everything is as it was before.
    """
    asked = address or "unix"
    place = _address(name, asked)
    linger = systemd.enable_linger()
    systemd.await_manager()
    service = _planned(_current(store, name), name, asked, place, memory_max, linger)
    _apply(store, name, service, enable=True)
    return _shown(service, systemd.properties(service.unit))


def make_room(store: Store, name: str, digest: str) -> Service | None:
    """Let the unit have memory for this version as well as for the current one, whichever the device starts next.

    Returns the plan of this version, for `restart`; None where there is no service. What serves goes on.
    ServiceError where it can't run within its memory.
    """
    before = _read(store, name)
    if before is None:
        return None
    place = _address(name, before.asked)
    service = _planned(store.model(name).seed(digest), name, before.asked, place, before.memory_asked, before.linger)
    wide = replace(_wide(before, service), installing=before.installing)
    # The next switch reads from it what the current version needs, so it is never behind the unit.
    if wide != before:
        _write(store, name, wide)
    path, text = _units() / wide.unit, unit_text(store, name, wide).encode()
    if path.exists() and path.read_bytes() != text:
        with atomic_write(path) as file:
            file.write(text)
        systemd.systemctl("daemon-reload")
    return service


def restart(store: Store, name: str, service: Service | None = None) -> dict[str, Any] | None:
    """Let the service take the version that is current now; None where there is no service.

    `service` is what `make_room` planned for it. Errors as `install`, after which the unit is as it was and the
    service is to be restarted with the version before.
    """
    before = _read(store, name)
    if before is None:
        return None
    if service is None:
        place = _address(name, before.asked)
        service = _planned(_current(store, name), name, before.asked, place, before.memory_asked, before.linger)
    _apply(store, name, service, enable=before.installing)
    return _shown(service, systemd.properties(service.unit))


def remove(store: Store, name: str) -> None:
    """Stop the service and remove its unit; nothing where there is none."""
    service = _read(store, name)
    unit = service.unit if service else _unit_name(name)
    path = _units() / unit
    if path.exists():
        _take_away(path, unit)
    (_folder(store, name) / _FILE).unlink(missing_ok=True)


def status(store: Store, name: str) -> dict[str, Any] | None:
    """What was installed, and what the service manager says of it now; None where there is no service."""
    service = _read(store, name)
    return None if service is None else _shown(service, systemd.properties(service.unit))


def log(name: str, lines: int) -> list[str]:
    """The last lines that the service wrote; empty where nobody keeps them."""
    return systemd.journal(_unit_name(name), lines)


def unit_text(store: Store, name: str, service: Service) -> str:
    """The unit, as systemd reads it."""
    command = [
        str(store.home / "runtime" / "current" / "bin" / "seed-run"),
        str(_current(store, name)),
        "--serve",
        service.address.removeprefix("http://"),
    ]
    if service.max_memory is not None:
        command += ["--max-memory", str(service.max_memory)]
    # Before each start, the device's own included: a switch that a power cut ended is not tried again and again.
    settle = [str(store.home / "runtime" / "current" / "bin" / "python"), "-I", "-m", "seed_runtime.agent", "settle"]
    settings = {key: os.environ[key] for key in _SETTINGS if os.environ.get(key)}
    writable = [str(path) for path in _writable()]
    return systemd.unit_text(name, command, [*settle, name], settings, writable, service.memory_max)


# What is to run


def _planned(
    seed: Path, name: str, asked: str, place: serve.Address, memory_asked: int | None, linger: bool
) -> Service:
    wall = memory_asked
    most = max(1, wall - MARGIN) if wall is not None else 3 * _ram() // 4
    planned = _planned_bytes(seed, most)
    if planned is not None:
        planned, wall = (planned, planned + MARGIN) if wall is None else (most, wall)
    return Service(_unit_name(name), asked, str(place), memory_asked, planned, wall, linger)


def _wide(one: Service, other: Service) -> Service:
    """`other` with memory for both: no limit where only one of them can be started with --max-memory."""
    if (one.max_memory is None) != (other.max_memory is None):
        return replace(other, max_memory=None, memory_max=None)
    return replace(
        other,
        max_memory=_larger(one.max_memory, other.max_memory),
        memory_max=_larger(one.memory_max, other.memory_max),
    )


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _planned_bytes(seed: Path, most: int) -> int | None:
    """See `serve.planned_bytes`. In a process of its own: what this one has taken already is no part of the plan."""
    if not seed.is_file():
        raise UsageError(f"{seed} is not there; push a model first")
    done = systemd.run([sys.executable, "-I", "-m", "seed_runtime.serve", str(seed), str(most)], PLAN_S)
    try:
        planned = json.loads(done.stdout)["planned_bytes"] if done.returncode == 0 else None
    except (ValueError, KeyError, TypeError):
        raise systemd.ServiceError("the plan of the server can't be read", 1) from None
    if done.returncode:
        raise systemd.ServiceError(systemd.last(done.stderr).removeprefix("seed-run: "), done.returncode)
    return planned if isinstance(planned, int) else None


def _address(name: str, asked: str) -> serve.Address:
    if asked == "unix":
        return serve.parse(f"unix:{systemd.runtime_folder()}/seed-{name}.sock")
    address = serve.parse(asked)
    if address.path is not None or address.port == 0:
        raise UsageError(f"a service listens on 'unix' or a loopback port such as 127.0.0.1:8080, not on {asked!r}")
    return address


def _unit_name(name: str) -> str:
    return f"seed-{name}.service"


def _units() -> Path:
    return paths.config_home().parent / "systemd" / "user"


def _folder(store: Store, name: str) -> Path:
    return store.model(name).folder


def _current(store: Store, name: str) -> Path:
    return store.model(name).link / SEED_FILE


def _writable() -> list[Path]:
    """What the server writes: assembled models, the versions that it accepted, its socket."""
    return [paths.cache_home(), paths.state_home(), Path(systemd.runtime_folder())]


def _ram() -> int:
    """Memory of the device [B], 0 where it isn't told."""
    with contextlib.suppress(OSError):
        match = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if match:
            return int(match[1]) << 10
    return 0


# Making it so


def _apply(store: Store, name: str, service: Service, *, enable: bool) -> None:
    """Write the unit, let it run and write it down; on an error, the unit that was there before."""
    for path in _writable():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _units() / service.unit
    path.parent.mkdir(parents=True, exist_ok=True)
    before, first = path.read_bytes() if path.exists() else None, _read(store, name) is None
    try:
        if first:
            _write(store, name, replace(service, installing=True))
        with atomic_write(path) as file:
            file.write(unit_text(store, name, service).encode())
        systemd.systemctl("daemon-reload")
        if enable:
            systemd.systemctl("enable", service.unit)
        systemd.systemctl("restart", service.unit, seconds=systemd.CHANGE_S)
        _await_ready(service)
        _write(store, name, service)
    except BaseException as error:
        failure = _failure(service.unit, error) if isinstance(error, systemd.ServiceError) else None
        _undo(path, service.unit, before, again=enable)
        if first:
            (_folder(store, name) / _FILE).unlink(missing_ok=True)
        if failure is not None:
            raise failure from None
        raise


def _undo(path: Path, unit: str, before: bytes | None, *, again: bool) -> None:
    """Put the unit back; `again`: and start it again. Otherwise the caller does, once `current` is back as well."""
    if before is None:
        _take_away(path, unit)
        return
    with atomic_write(path) as file:
        file.write(before)
    systemd.systemctl("daemon-reload", check=False)
    systemd.systemctl("reset-failed", unit, check=False)
    if again:
        systemd.systemctl("restart", unit, check=False, seconds=systemd.CHANGE_S)


def _take_away(path: Path, unit: str) -> None:
    systemd.systemctl("disable", "--now", unit, check=False, seconds=systemd.CHANGE_S)
    path.unlink(missing_ok=True)
    systemd.systemctl("daemon-reload", check=False)
    systemd.systemctl("reset-failed", unit, check=False)


def _failure(unit: str, error: systemd.ServiceError) -> systemd.ServiceError:
    """What the server itself said, if it did: its last line and its exit code."""
    code = systemd.properties(unit).get("ExecMainStatus", "")
    said = [line.partition("seed-run: ")[2] for line in systemd.journal(unit, 20) if "seed-run: " in line]
    if not (code.isdigit() and int(code) in _CODES):
        return error
    return systemd.ServiceError(said[-1] if said else error.message, int(code))


def _await_ready(service: Service) -> None:
    deadline = time.monotonic() + READY_S
    problem = "it does not answer"
    while time.monotonic() < deadline:
        try:
            code = _ask(serve.parse(service.address.removeprefix("http://")), "/v2/health/ready")
            if code == 200:
                return
            problem = f"it answers {code}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(error)
        time.sleep(0.2)
    raise systemd.ServiceError(
        f"{service.unit} runs, but {service.address} is not ready ({problem}); see: journalctl --user -u {service.unit}"
    )


def _ask(address: serve.Address, path: str) -> int:
    """The status of a GET."""
    connection = http.client.HTTPConnection(
        "localhost" if address.path else address.host, address.port, timeout=READY_S
    )
    if address.path is not None:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(READY_S)
        connection.sock.connect(address.path)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status


def _shown(service: Service, properties: dict[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {**asdict(service), "active": properties.get("ActiveState", "unknown")}
    for key, name in (("pid", "MainPID"), ("restarts", "NRestarts"), ("memory_current", "MemoryCurrent")):
        value = properties.get(name, "")
        shown[key] = int(value) if value.isdigit() else None
    if not service.linger:
        user = pwd.getpwuid(os.getuid()).pw_name
        shown["hint"] = f"it ends when you log out; on the device run: sudo loginctl enable-linger {user}"
    return shown


# service.json


def _read(store: Store, name: str) -> Service | None:
    try:
        with (_folder(store, name) / _FILE).open("rb") as file:
            found = json.loads(file.read(_FILE_MAX))
        return Service(**{key: found[key] for key in Service.__dataclass_fields__ if key in found})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(store: Store, name: str, service: Service) -> None:
    with atomic_write(_folder(store, name) / _FILE) as file:
        file.write(json.dumps(asdict(service), sort_keys=True).encode() + b"\n")
