"""The record of a kind of device, read from its TOML file; every key is checked."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from seed_runtime.agent.processors import BOARDS
from seed_runtime.errors import UsageError

FILE_MAX: Final = 1 << 16
"""Largest size of a profile's file, in bytes."""
_MIB: Final = 1 << 20
_MINOR_MAX: Final = 999
"""Largest second number of a glibc's version: a wrong one must not become a long list of tags."""


@dataclasses.dataclass(frozen=True)
class WheelTags:
    """The manylinux tags that a device takes (PEP 600): from the newest that its glibc admits to the oldest."""

    machine: str
    oldest_glibc: tuple[int, int]
    aliases: Mapping[tuple[int, int], str]

    def tags(self, glibc: tuple[int, int]) -> list[str]:
        """Return the platform tags for pip, best first; none where the device's glibc is older than every tag."""
        found = []
        for minor in range(glibc[1], self.oldest_glibc[1] - 1, -1):
            found.append(f"manylinux_2_{minor}_{self.machine}")
            if alias := self.aliases.get((2, minor)):
                found.append(f"{alias}_{self.machine}")
        return found


@dataclasses.dataclass(frozen=True)
class Profile:
    """A kind of device; the package's docstring describes the fields. `ram` is in bytes."""

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
    board: str = ""
    wheels: WheelTags | None = None
    note: str = ""
    port: int = 22
    service: bool = True
    inference: bool = True
    supported: bool = True


def parse(name: str, text: bytes) -> Profile:
    """Parse a profile's file.

    Args:
        name: the file's name without its suffix.
        text: what the file holds.

    Raises:
        UsageError: the file is wrong; the message names the key.
    """
    if len(text) > FILE_MAX:
        raise UsageError(f"profile {name}: {len(text):,} bytes exceed the limit of {FILE_MAX:,}; shorten it")
    try:
        table = _Table(f"profile {name}", tomllib.loads(text.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"profile {name}: {error}; correct the file") from None
    recognise = table.table("recognise")
    wheels = table.table("wheels", {})
    profile = Profile(
        name=name,
        title=table.take("title", str),
        ram=tuple(size * _MIB for size in table.take_list("ram_mib", int)),
        cores=table.take("cores", int),
        cpu=table.take("cpu", str),
        board=table.take("board", str, ""),
        system=table.take("system", str),
        installed=tuple(table.take_list("installed", str)),
        machines=tuple(recognise.take_list("machines", str)),
        models=tuple(recognise.take_list("models", str, [])),
        termux=recognise.take("termux", bool, False),
        wheels=_wheel_tags(wheels) if wheels.left else None,
        note=table.take("note", str, ""),
        port=table.take("port", int, 22),
        service=table.take("service", bool, True),
        inference=table.take("inference", bool, True),
        supported=table.take("supported", bool, True),
    )
    for part in (table, recognise, wheels):
        part.refuse_others()
    if profile.board and profile.board not in BOARDS:
        raise UsageError(f"profile {name}: no board is called {profile.board!r}; use one of {', '.join(BOARDS)}")
    if not profile.ram or not profile.machines:
        raise UsageError(f"profile {name}: ram_mib and machines need at least one entry each; add it")
    if profile.inference and profile.wheels is None:
        raise UsageError(f"profile {name}: without [wheels] nothing can run the model; add it, or inference = false")
    if not (0 < profile.port < 1 << 16) or min(profile.ram) <= 0 or profile.cores <= 0:
        raise UsageError(f"profile {name}: port, ram_mib and cores must be above 0; correct them")
    if not (profile.supported and profile.inference) and not profile.note:
        raise UsageError(f"profile {name}: it doesn't support everything and needs a note that says what works; add it")
    return profile


def parse_glibc(text: str) -> tuple[int, int]:
    """Parse the version of a glibc such as "2.36"; what follows the second number doesn't count.

    Raises:
        UsageError: it is no version of glibc 2, the only one that manylinux tags exist for.
    """
    first, _, rest = text.partition(".")
    second = "".join(digit for digit in rest.partition(".")[0] if digit.isdigit())
    if first != "2" or not second or int(second) > _MINOR_MAX:
        raise UsageError(f"{text!r} is no version of glibc, such as 2.36; correct it")
    return 2, int(second)


class _Table:
    """A table of a TOML file from which every key must be taken, with its type."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where, self.left = where, dict(values)

    def take(self, key: str, kind: type[Any], default: Any = None) -> Any:
        value = self.left.pop(key, default)
        # A bool is an int to Python and not to a reader.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UsageError(f"{self.where}: {key} must be given as {kind.__name__}; correct the file")
        return value

    def take_list(self, key: str, kind: type[Any], default: list[Any] | None = None) -> list[Any]:
        values = self.take(key, list, default)
        if not all(isinstance(value, kind) for value in values):
            raise UsageError(f"{self.where}: {key} must be a list of {kind.__name__}; correct the file")
        return list(values)

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> _Table:
        return _Table(f"{self.where}, [{key}]", self.take(key, dict, default))

    def refuse_others(self) -> None:
        if self.left:
            raise UsageError(f"{self.where}: {', '.join(sorted(self.left))} is no key of a profile; remove it")


def _wheel_tags(table: _Table) -> WheelTags:
    aliases = table.take("aliases", dict, {})
    return WheelTags(
        machine=table.take("machine", str),
        oldest_glibc=parse_glibc(table.take("oldest_glibc", str)),
        aliases={parse_glibc(version): str(alias) for version, alias in aliases.items()},
    )
