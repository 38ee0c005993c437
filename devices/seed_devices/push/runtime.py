"""Install the runtime on a device: a virtual environment in its store, made of wheels that the host sends.

The device needs Python >= 3.11 with its venv module, and nothing else: no pip, no compiler, no network, no sudo.
A failure in any phase leaves the runtime that was there (remote/installer.py, which runs on the device, sees to that).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from seed_devices.errors import RemoteError
from seed_devices.profiles import Profile
from seed_devices.push import requirements, wheels
from seed_devices.push.requirements import DISK_MARGIN, NoRoomError, version
from seed_devices.push.wheel_cache import Wheel
from seed_devices.remote.agent_client import Progress
from seed_devices.remote.installer_client import InstallerClient
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.transfer import put

WAIT_S: Final = 600
"""Seconds that another installation on the same device may take."""


@dataclasses.dataclass(frozen=True)
class Installed:
    """Runtime that a device has. `fresh` is True if this call installed it."""

    version: str
    path: str
    fresh: bool
    sent: int = 0
    """Bytes of wheels that were sent."""
    notes: tuple[str, ...] = ()
    """Notes for the user on the wheels that the runtime was made from."""


def bytes_to_send(
    facts: Mapping[str, Any],
    profile: Profile,
    *,
    online: bool = False,
    seed_bytes: int = 0,
    extras: Sequence[str] = (),
) -> int:
    """Return the bytes of wheels that an installation would send. Nothing on the device is changed.

    Args:
        facts: what the device reported.
        profile: the device's.
        online: see `install`.
        seed_bytes: see `install`.
        extras: see `install`.

    Raises:
        UnsupportedError: no wheels exist for the device.
        WheelsError: wheels are missing here, and the package index can't be reached.
        NoRoomError: the runtime and the seed don't fit on the device's disk.
    """
    python = version(str(facts["python"]))
    house = wheels.collect(profile, python[:2], str(facts["libc"][1]), dependencies=not online, extras=extras)
    missing = house.missing_bytes(facts.get("wheels") or {})
    needed, free = missing + _staying_bytes(house, missing, seed_bytes) + DISK_MARGIN, facts.get("disk_free")
    if free is not None and needed > free:
        raise NoRoomError(str(facts.get("store")), needed, int(free))
    return missing


def install(
    connection: Connection,
    facts: Mapping[str, Any],
    *,
    needed: tuple[int, int, int] = (0, 0, 0),
    online: bool = False,
    seed_bytes: int = 0,
    extras: Sequence[str] = (),
    progress: Progress | None = None,
) -> Installed:
    """Put this host's version of the runtime into the device's store, unless another host just did.

    Args:
        connection: to the device.
        facts: what the device reported.
        needed: the oldest version that the seed runs with; this host's may be too old for it.
        online: let pip on the device download what seed-runtime needs from its own index; ours is sent all the same.
        seed_bytes: bytes of a seed that are to be sent afterwards, for which there must be room, too.
        extras: of seed-runtime, such as `tflite`, that the device's models need.
        progress: called with the name of a phase, what is done of it, and all of it; bytes where bytes travel.

    Raises:
        UnsupportedError: the device can't take a runtime, see `requirements.check`.
        DiskSpaceError: it doesn't fit on the device's disk.
        WheelsError: wheels are missing here, and the package index can't be reached.
        RemoteError: the device refuses.
        UnreachableError: the connection was lost.
    """
    requirements.check(facts, needed)
    report = progress or (lambda phase, done, total: None)
    with InstallerClient(connection, report) as client:
        # The facts may come from the runtime that is there; the new one is made by python3 as it is now.
        profile = requirements.check({**facts, "python": client.python})
        python = version(client.python)[:2]
        house = wheels.collect(
            profile,
            (python[0], python[1]),
            str(facts["libc"][1]),
            dependencies=not online,
            extras=extras,
            progress=progress,
        )
        return _install(connection, client, facts, profile, house, online, seed_bytes, extras)


def _install(
    connection: Connection,
    client: InstallerClient,
    facts: Mapping[str, Any],
    profile: Profile,
    house: wheels.Wheelhouse,
    online: bool,
    seed_bytes: int,
    extras: Sequence[str],
) -> Installed:
    by_name = {wheel.path.name: wheel for wheel in house.all}
    there = facts.get("runtime") or {}
    answer = client.call(
        "prepare",
        store=facts["store"],
        known=there.get("path"),
        wanted=list(version(house.version)),
        wheels=[{"name": name, "sha256": wheel.sha256, "size": wheel.size} for name, wheel in by_name.items()],
        unpacked=_staying_bytes(house, house.missing_bytes(facts.get("wheels") or {}), seed_bytes),
        wait_s=WAIT_S,
    )
    if answer["state"] == "there":
        return Installed(answer["version"], answer["path"], False)
    missing = {name: part for name, part in (answer.get("missing") or {}).items() if name in by_name}
    total = sum(by_name[name].size for name in missing)
    sent = before = sum(part["have"] for part in missing.values())
    for name, part in missing.items():
        sent -= part["have"]
        _send(connection, client, by_name[name], part["path"], part["have"], sent, total)
        sent += by_name[name].size
        client.report("transfer", sent, total)
    answer = client.call(
        "install",
        version=house.version,
        own=house.own.path.name,
        pip=house.pip.path.name,
        modules=[*requirements.modules(profile, extras), "seed_runtime.agent.operations"],
        online=online,
        dependencies=profile.inference,
        extras=list(extras) if profile.inference else [],
        system=not profile.inference,
    )
    if not profile.inference:
        origin = "the NumPy that is there"
    else:
        origin = "what the device's own index has" if online else ", ".join(house.titles)
    notes = (*house.notes, f"runtime {house.version} was installed with {origin}")
    return Installed(answer["version"], answer["path"], True, total - before, notes)


def _staying_bytes(house: wheels.Wheelhouse, missing: int, seed_bytes: int) -> int:
    """Return the bytes for which there must be room beside the `missing` ones of wheels.

    The wheels are removed before the seed comes.
    """
    return house.unpacked + max(0, seed_bytes - missing)


def _send(
    connection: Connection, client: InstallerClient, wheel: Wheel, path: str, have: int, before: int, total: int
) -> None:
    """Send one wheel, from where it stopped last; from its beginning if it arrives with another digest."""
    for start in (have, 0):
        try:
            put(
                connection,
                wheel.path,
                path,
                start,
                progress=lambda done, _: client.report("transfer", before + done, total),
            )
        except RemoteError:
            if (free := client.call("room")["free"]) < DISK_MARGIN:
                raise NoRoomError(str(PurePosixPath(path).parent), wheel.size, free) from None
            raise
        if client.call("place", name=wheel.path.name)["good"]:
            return
    raise RemoteError(1, f"{connection.target}: {wheel.path.name} arrives damaged; check the device's disk: dmesg")
