"""Run a model of the store as a service of the user's systemd: `seed-run ... --serve` on a socket or a loopback port.

The unit names `current`, so that a restart after a switch serves the other version. The unit is written again before
each restart, as another version needs other memory. If a service doesn't become ready, the unit is as it was before.

What the unit and service.json allow is never less than `current` needs, at any moment of a power cut: `reserve_memory`
is called before a switch, `restart` after it. service.json exists before its unit does and until the unit is gone, so
that a killed installation is recognized as a service: the next switch completes it, `remove` removes it. The callers
hold the model's lock.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.agent.service import settings, systemd
from seed_runtime.agent.service.plan import parse_address, plan_service, with_memory_for_both
from seed_runtime.agent.service.readiness import await_ready
from seed_runtime.agent.service.settings import Service
from seed_runtime.system import paths
from seed_runtime.system.files import atomic_write

if TYPE_CHECKING:
    from seed_runtime.agent.store.store import Store

_ENVIRONMENT: Final = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "SEED_HOME", "SEED_CACHE_LIMIT")
"""Variables that a service has as the agent that installs it."""
_FINAL_CODES: Final = {3, 10, 11, 12, 13, 14}
"""Exit codes of seed-run that say what is wrong, and that another start would end with as well."""


def install(store: Store, name: str, address: str | None = None, memory_max: int | None = None) -> dict[str, Any]:
    """Serve the current version of `name`, now and after each start of the device. Returns once it is ready.

    Args:
        store: the store.
        name: the model.
        address: "unix" (the default) for a socket in the user's runtime folder, or a loopback address and port.
        memory_max: what the kernel lets the service have, None for what its largest measured input needs, of at most
            three quarters of the device's memory [B].

    Returns:
        The service, as in the answer to `status`.

    Raises:
        UsageError: the address can't be used.
        ServiceError: the model can't run within `memory_max`, no user manager runs, or the service doesn't become
            ready; then everything is as it was before.
    """
    asked = address or "unix"
    parse_address(name, asked)
    linger = systemd.enable_linger()
    systemd.await_manager()
    service = plan_service(settings.current_seed(store, name), name, asked, memory_max, linger)
    _apply(store, name, service, enable=True)
    return _describe(service, systemd.properties(service.unit))


def reserve_memory(store: Store, name: str, digest: str) -> Service | None:
    """Let the unit have memory for this version as well as for the current one, whichever the device starts next.

    The running server isn't touched.

    Returns:
        The service planned for this version, for `restart`; None if there is no service.

    Raises:
        ServiceError: this version can't run within the service's memory.
    """
    before = settings.read(store, name)
    if before is None:
        return None
    planned = _plan_as(before, store.model(name).seed_path(digest), name)
    reserved = replace(with_memory_for_both(before, planned), installing=before.installing)
    # The next switch reads from service.json what the current version needs, so it is written before the unit.
    if reserved != before:
        settings.write(store, name, reserved)
    path, text = settings.unit_path(reserved.unit), unit_text(store, name, reserved).encode()
    if path.exists() and path.read_bytes() != text:
        with atomic_write(path) as file:
            file.write(text)
        systemd.systemctl("daemon-reload")
    return planned


def restart(store: Store, name: str, planned: Service | None = None) -> dict[str, Any] | None:
    """Restart the service with the version that is current now.

    Args:
        store: the store.
        name: the model.
        planned: what `reserve_memory` planned for that version; planned here if None.

    Returns:
        The service, as in the answer to `status`; None if there is none.

    Raises:
        ServiceError: as `install`. Then the unit is as it was, and the caller restarts the version before.
    """
    before = settings.read(store, name)
    if before is None:
        return None
    if planned is None:
        planned = _plan_as(before, settings.current_seed(store, name), name)
    _apply(store, name, planned, enable=before.installing)
    return _describe(planned, systemd.properties(planned.unit))


def remove(store: Store, name: str) -> None:
    """Stop the service and remove its unit, if there is one."""
    service = settings.read(store, name)
    unit = service.unit if service else settings.unit_name(name)
    if settings.unit_path(unit).exists():
        _remove_unit(unit)
    settings.file_path(store, name).unlink(missing_ok=True)


def status(store: Store, name: str) -> dict[str, Any] | None:
    """Return what was installed, and what the service manager says about it now; None if there is no service."""
    service = settings.read(store, name)
    return None if service is None else _describe(service, systemd.properties(service.unit))


def log(name: str, lines: int) -> list[str]:
    """Return the last lines that the service wrote; none if the system keeps no journal."""
    return systemd.journal(settings.unit_name(name), lines)


def unit_text(store: Store, name: str, service: Service) -> str:
    """Return the unit as systemd reads it."""
    commands = store.home / "runtime" / "current" / "bin"
    command = [
        str(commands / "seed-run"),
        str(settings.current_seed(store, name)),
        "--serve",
        service.address.removeprefix("http://"),
    ]
    if service.max_memory is not None:
        command += ["--max-memory", str(service.max_memory)]
    # Before each start, also the one when the device starts: a switch that a power cut ended is not tried again.
    settle = [str(commands / "python"), "-I", "-m", "seed_runtime.agent", "settle", name]
    environment = {key: os.environ[key] for key in _ENVIRONMENT if os.environ.get(key)}
    writable = [str(path) for path in _writable_folders()]
    return systemd.unit_text(name, command, settle, environment, writable, service.memory_max)


def _plan_as(before: Service, seed: Path, name: str) -> Service:
    """Plan a service for `seed` that is otherwise as the one before."""
    return plan_service(seed, name, before.asked, before.memory_asked, before.linger)


def _apply(store: Store, name: str, service: Service, *, enable: bool) -> None:
    """Write the unit, start it and note it in service.json. On an error, restore what was there before.

    Args:
        store: the store.
        name: the model.
        service: what to start.
        enable: start it with the device as well, and start it again on an error. Otherwise the caller does the latter,
            once `current` is restored, too.
    """
    for folder in _writable_folders():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.unit_path(service.unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    unit_before = path.read_bytes() if path.exists() else None
    is_first = settings.read(store, name) is None
    try:
        if is_first:
            settings.write(store, name, replace(service, installing=True))
        with atomic_write(path) as file:
            file.write(unit_text(store, name, service).encode())
        systemd.systemctl("daemon-reload")
        if enable:
            systemd.systemctl("enable", service.unit)
        systemd.systemctl("restart", service.unit, seconds=systemd.CHANGE_S)
        await_ready(service)
        settings.write(store, name, service)
    except BaseException as error:
        failure = _server_failure(service.unit, error) if isinstance(error, systemd.ServiceError) else None
        _restore_unit(service.unit, unit_before, start=enable)
        if is_first:
            settings.file_path(store, name).unlink(missing_ok=True)
        if failure is not None:
            raise failure from None
        raise


def _restore_unit(unit: str, before: bytes | None, *, start: bool) -> None:
    """Restore the file of a unit, or remove the unit if there was none. `start` it again as well."""
    if before is None:
        _remove_unit(unit)
        return
    with atomic_write(settings.unit_path(unit)) as file:
        file.write(before)
    systemd.systemctl("daemon-reload", check=False)
    systemd.systemctl("reset-failed", unit, check=False)
    if start:
        systemd.systemctl("restart", unit, check=False, seconds=systemd.CHANGE_S)


def _remove_unit(unit: str) -> None:
    systemd.systemctl("disable", "--now", unit, check=False, seconds=systemd.CHANGE_S)
    settings.unit_path(unit).unlink(missing_ok=True)
    systemd.systemctl("daemon-reload", check=False)
    systemd.systemctl("reset-failed", unit, check=False)


def _server_failure(unit: str, error: systemd.ServiceError) -> systemd.ServiceError:
    """Return the error with the server's own last line and exit code, if it gave one."""
    code = systemd.properties(unit).get("ExecMainStatus", "")
    if not (code.isdigit() and int(code) in _FINAL_CODES):
        return error
    lines = [line.partition("seed-run: ")[2] for line in systemd.journal(unit, 20) if "seed-run: " in line]
    return systemd.ServiceError(lines[-1] if lines else error.message, int(code))


def _describe(service: Service, properties: dict[str, str]) -> dict[str, Any]:
    """Return a service as answers show it. `properties` are those of its unit."""
    shown: dict[str, Any] = {**asdict(service), "active": properties.get("ActiveState", "unknown")}
    for key, name in (("pid", "MainPID"), ("restarts", "NRestarts"), ("memory_current", "MemoryCurrent")):
        value = properties.get(name, "")
        shown[key] = int(value) if value.isdigit() else None
    if not service.linger:
        user = pwd.getpwuid(os.getuid()).pw_name
        shown["hint"] = f"it ends when you log out; on the device run: sudo loginctl enable-linger {user}"
    return shown


def _writable_folders() -> list[Path]:
    """Return the folders that the server writes to: assembled models, accepted versions, its socket."""
    return [paths.cache_home(), paths.state_home(), Path(systemd.runtime_folder())]
