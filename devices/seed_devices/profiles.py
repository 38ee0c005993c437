"""What kinds of devices there are: one TOML file each in profiles/, recognised from the facts that a device tells.

A new profile is one new file; nothing else names it. Its keys:

    title, cpu, system, note     texts for people: errors, and the table in docs/devices.md
    ram_mib, cores               what such devices have; where a board doesn't tell its memory, the largest counts
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

import dataclasses
import functools
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Final

from seed_runtime.errors import UnsupportedError, UsageError

PROFILE_MAX: Final = 1 << 16
"""Bytes of a profile's file."""
_MIB: Final = 1 << 20
_MACHINES: Final = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}
_NARROW: Final = {"aarch64": "armv7l", "x86_64": "i686"}
"""What a 32-bit system on a 64-bit kernel is: `uname -m` tells the kernel."""


@dataclasses.dataclass(frozen=True)
class Wheels:
    """The manylinux tags that a device takes (PEP 600): from the newest that its glibc admits to the oldest."""

    machine: str
    oldest_glibc: tuple[int, int]
    aliases: Mapping[tuple[int, int], str]

    def tags(self, glibc: tuple[int, int]) -> list[str]:
        """Platform tags for pip, best first. Empty where the device's glibc is older than every tag."""
        found = []
        for minor in range(glibc[1], self.oldest_glibc[1] - 1, -1):
            found.append(f"manylinux_2_{minor}_{self.machine}")
            if alias := self.aliases.get((2, minor)):
                found.append(f"{alias}_{self.machine}")
        return found


@dataclasses.dataclass(frozen=True)
class Profile:
    """A kind of device. Sizes in bytes."""

    name: str
    title: str
    ram: tuple[int, ...]
    cores: int
    cpu: str
    system: str
    installed: tuple[str, ...]
    machines: tuple[str, ...]
    models: tuple[str, ...] = ()
    termux: bool = False
    wheels: Wheels | None = None
    note: str = ""
    port: int = 22
    service: bool = True
    inference: bool = True
    supported: bool = True


def match(facts: Mapping[str, Any]) -> Profile:
    """The profile of a device that told `facts`. UnsupportedError if there is none."""
    kind = machine(facts)
    bionic = bool(facts.get("termux")) and _libc(facts) != "glibc"
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
    """What the device's programs are built for, by the name that wheels use."""
    told = str(facts.get("machine") or "unknown").lower()
    kind = _MACHINES.get(told, told)
    return _NARROW.get(kind, kind) if facts.get("bits") == 32 else kind


@functools.cache
def load() -> Mapping[str, Profile]:
    """All profiles by name. UsageError names the file and the key that is wrong."""
    found = {}
    for entry in sorted((resources.files("seed_devices") / "profiles").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            found[name] = parse(name, entry.read_bytes())
    check(found.values())
    return found


def other_ports() -> str:
    """Where devices listen that don't at 22, in words: "8022 on an arm64 phone"."""
    return ", ".join(f"{one.port} on an {one.title}" for one in load().values() if one.port != 22)


def parse(name: str, text: bytes) -> Profile:
    """The profile of one file. UsageError names what is wrong in it."""
    if len(text) > PROFILE_MAX:
        raise UsageError(f"profile {name}: {len(text):,} bytes exceed the limit of {PROFILE_MAX:,}; shorten it")
    try:
        table = _Table(f"profile {name}", tomllib.loads(text.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"profile {name}: {error}; correct the file") from None
    recognise = table.table("recognise")
    wheels = table.table("wheels", {})
    supported = table.take("supported", bool, True)
    inference = table.take("inference", bool, True)
    profile = Profile(
        name=name,
        title=table.take("title", str),
        ram=tuple(size * _MIB for size in table.many("ram_mib", int)),
        cores=table.take("cores", int),
        cpu=table.take("cpu", str),
        system=table.take("system", str),
        installed=tuple(table.many("installed", str)),
        machines=tuple(recognise.many("machines", str)),
        models=tuple(recognise.many("models", str, [])),
        termux=recognise.take("termux", bool, False),
        wheels=_wheels(wheels) if wheels.left else None,
        note=table.take("note", str, ""),
        port=table.take("port", int, 22),
        service=table.take("service", bool, True),
        inference=inference,
        supported=supported,
    )
    for part in (table, recognise, wheels):
        part.done()
    if not profile.ram or not profile.machines:
        raise UsageError(f"profile {name}: ram_mib and machines need one entry each at least; add them")
    if inference and profile.wheels is None:
        raise UsageError(f"profile {name}: without [wheels] nothing can run the model; add it, or inference = false")
    if not (0 < profile.port < 1 << 16) or min(profile.ram) <= 0 or profile.cores <= 0:
        raise UsageError(f"profile {name}: port, ram_mib and cores must be above 0; correct them")
    if not (supported and inference) and not profile.note:
        raise UsageError(f"profile {name}: what doesn't work needs a note that says what does; add it")
    return profile


def check(profiles: Iterable[Profile]) -> None:
    """UsageError if two profiles recognise the same devices."""
    seen: dict[tuple[str, str, bool], str] = {}
    for profile in profiles:
        for kind in profile.machines:
            for start in profile.models or ("",):
                other = seen.setdefault((kind, start, profile.termux), profile.name)
                if other != profile.name:
                    what = f"models {start!r}" if start else f"every {kind}"
                    raise UsageError(f"profiles {other} and {profile.name} both recognise {what}; let one of them go")


class _Table:
    """A table of a TOML file from which every key must be taken, with its type."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where, self.left = where, dict(values)

    def take(self, key: str, kind: type[Any], default: Any = None) -> Any:
        value = self.left.pop(key, default)
        # A bool is an int to Python and not to a reader.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UsageError(f"{self.where}: {key} must be there as {kind.__name__}; correct the file")
        return value

    def many(self, key: str, kind: type[Any], default: list[Any] | None = None) -> list[Any]:
        values = self.take(key, list, default)
        if not all(isinstance(value, kind) for value in values):
            raise UsageError(f"{self.where}: {key} must be a list of {kind.__name__}; correct the file")
        return list(values)

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> _Table:
        return _Table(f"{self.where}, [{key}]", self.take(key, dict, default))

    def done(self) -> None:
        if self.left:
            raise UsageError(f"{self.where}: {', '.join(sorted(self.left))} is no key of a profile; remove it")


def _wheels(table: _Table) -> Wheels:
    aliases = table.take("aliases", dict, {})
    return Wheels(
        machine=table.take("machine", str),
        oldest_glibc=glibc(table.take("oldest_glibc", str)),
        aliases={glibc(version): str(alias) for version, alias in aliases.items()},
    )


def glibc(text: str) -> tuple[int, int]:
    """The number of a glibc such as "2.36"; what follows the second number doesn't count. UsageError otherwise."""
    first, _, rest = text.partition(".")
    second = "".join(digit for digit in rest.partition(".")[0] if digit.isdigit())
    # manylinux tags exist for glibc 2 only, and a limit keeps a lie from becoming a long list of tags.
    if first != "2" or not second or int(second) > 999:
        raise UsageError(f"{text!r} is no version of glibc, such as 2.36; correct it")
    return 2, int(second)


def _libc(facts: Mapping[str, Any]) -> str:
    libc = facts.get("libc") or [""]
    return str(libc[0])
