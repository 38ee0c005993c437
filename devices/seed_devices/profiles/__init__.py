"""Kinds of devices: one TOML file each in this folder, recognised from the facts that a device reports.

A new profile is one new file; nothing else names it. Its keys:

    title, cpu, system, note     texts for people: errors, and the table in docs/devices.md
    board                        its name in seed_runtime.agent.processors, which knows its instructions; none where
                                 they differ from device to device, and only the device knows them
    ram_mib, cores               what such devices have; where a board doesn't report its memory, the largest counts
    installed                    Debian packages of those that matter here that the system comes with
    port                         where its SSH server listens, 22 if not given; named where a login is refused
    service                      false where no systemd runs: --service is refused
    inference                    false where ONNX Runtime has no wheels: seeds are verified and assembled, not run
    supported                    false where seed-runtime can't be installed at all; `note` says what to do
    [recognise] machines         what `uname -m` says, 32-bit systems on 64-bit kernels counted as 32-bit
    [recognise] models           beginnings of /proc/device-tree/model; without any, every model of these machines
    [recognise] termux           true: only under Termux with Android's own C library
    [wheels] machine, oldest_glibc, aliases     the manylinux tags it takes, up to the glibc that the device has

The most specific profile wins: Termux, then the longest beginning of the model's name, then the machine alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Final

from seed_devices.profiles.profile import Profile, WheelTags, parse, parse_glibc
from seed_runtime.agent.processors import BOARDS, Processor, processor_of
from seed_runtime.errors import UnsupportedError, UsageError

__all__ = [
    "Profile",
    "WheelTags",
    "check_disjoint",
    "load",
    "machine",
    "match",
    "other_ports",
    "parse",
    "parse_glibc",
    "processor",
]

_MACHINES: Final = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}
_32_BIT: Final = {"aarch64": "armv7l", "x86_64": "i686"}
"""The machine of a 32-bit system on a 64-bit kernel: `uname -m` names the kernel's."""


def match(facts: Mapping[str, Any]) -> Profile:
    """Return the profile of the device that reported `facts`.

    Raises:
        UnsupportedError: there is none.
    """
    kind = machine(facts)
    bionic = bool(facts.get("termux")) and (facts.get("libc") or [""])[0] != "glibc"
    model = str(facts.get("model") or "")
    found: list[tuple[int, int, Profile]] = []
    for profile in load().values():
        if kind not in profile.machines or profile.termux != bionic:
            continue
        longest = max((len(start) for start in profile.models if model.startswith(start)), default=0)
        if longest or not profile.models:
            found.append((int(profile.termux), longest, profile))
    if not found:
        known = ", ".join(sorted({name for profile in load().values() for name in profile.machines}))
        raise UnsupportedError(
            f"the device is a {kind}{' under Termux' if bionic else ''} and seed-runtime knows {known}; "
            "use a 64-bit system if the board can run one"
        )
    return max(found, key=lambda one: one[:2])[2]


def machine(facts: Mapping[str, Any]) -> str:
    """Return what the device's programs are built for, by the name that wheels use."""
    reported = str(facts.get("machine") or "unknown").lower()
    kind = _MACHINES.get(reported, reported)
    return _32_BIT.get(kind, kind) if facts.get("bits") == 32 else kind


def processor(facts: Mapping[str, Any]) -> Processor | None:
    """Return the processor of the device that reported `facts`, or of its board where it reports no instructions.

    None where no model runs on the device.
    """
    try:
        profile = match(facts)
    except UnsupportedError:
        return None
    if not (profile.supported and profile.inference):
        return None
    instructions = facts.get("instructions")
    if instructions is None and profile.board:
        return BOARDS[profile.board]
    return processor_of(machine(facts), instructions)


@functools.cache
def load() -> Mapping[str, Profile]:
    """Read all profiles; returns them by name.

    Raises:
        UsageError: a file is wrong, or two of them recognise the same devices.
    """
    found = {}
    for entry in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            found[name] = parse(name, entry.read_bytes())
    check_disjoint(found.values())
    return found


def other_ports() -> str:
    """Name the devices that don't listen at port 22, such as "8022 on an arm64 phone"."""
    return ", ".join(f"{profile.port} on an {profile.title}" for profile in load().values() if profile.port != 22)


def check_disjoint(profiles: Iterable[Profile]) -> None:
    """Check that no two profiles recognise the same devices.

    Raises:
        UsageError: two do.
    """
    seen: dict[tuple[str, str, bool], str] = {}
    for profile in profiles:
        for kind in profile.machines:
            for start in profile.models or ("",):
                other = seen.setdefault((kind, start, profile.termux), profile.name)
                if other != profile.name:
                    what = f"models {start!r}" if start else f"every {kind}"
                    raise UsageError(f"profiles {other} and {profile.name} both recognise {what}; remove it from one")
