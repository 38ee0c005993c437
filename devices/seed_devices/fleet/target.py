"""Parse what a user writes for a device: `[user@]host[:port]`, `[user@]host:name` or `ssh://[user@]host[:port][/name]`.

Digits alone after the colon are a port, as everywhere else; a model whose name is digits alone is written with ssh://.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from seed_devices import names
from seed_runtime.agent.names import NAME
from seed_runtime.errors import UsageError

TARGET_MAX: Final = 512
"""Largest length of what a user writes for a device, in characters."""
_URI: Final = re.compile(
    r"ssh://(?P<host>(?:[^@/:]+@)?(?:\[[^\]/]+\]|[^:/@]+))(?::(?P<port>\d{1,5}))?(?:/(?P<name>.*))?"
)
_PLAIN: Final = re.compile(r"(?P<host>(?:[^@/:]+@)?(?:\[[^\]/]+\]|[^:/@]+))(?::(?P<name>.*))?")
_PORT_AND_NAME: Final = re.compile(r"(\d{1,5})[:/](.+)")


@dataclass(frozen=True)
class Target:
    """A device, and the model on it that is meant, if one is named.

    Args:
        host: what ssh takes: `[user@]host`, an IPv6 address without brackets.
        name: of the model.
        port: in place of ssh's configuration.
    """

    host: str
    name: str | None = None
    port: int | None = None

    @property
    def device(self) -> str:
        """Return the device's name, as a user can write it; two boards behind one address have two."""
        return names.device_name(self.host, self.port)

    @property
    def file_name(self) -> str:
        """Return what stands for the device in names of files: its host without the user, and -PORT behind it."""
        address = self.host.rpartition("@")[2]
        return address if self.port is None else f"{address}-{self.port}"

    def of(self, name: str) -> str:
        """Return what a user can write for a model on this device."""
        return names.model_name(self.device, name)

    def __str__(self) -> str:
        return self.of(self.name) if self.name else self.device


def parse(text: str, name: str | None = None) -> Target:
    """Parse what a user wrote for a device.

    Args:
        text: what the user wrote.
        name: the model's name where the text has none.

    Raises:
        UsageError: it is no device; the message says how to write one.
    """
    pattern = _URI if text.startswith("ssh://") else _PLAIN
    match = pattern.fullmatch(text) if len(text) <= TARGET_MAX and not re.search(r"[\s\0]", text) else None
    if match is None or text.startswith("-"):
        raise UsageError(
            f"{text[:80]!r} is no device; write [user@]host or [user@]host:name, and an IPv6 address in brackets"
        )
    found = match.groupdict()
    own, digits = found["name"], found.get("port")
    if pattern is _PLAIN and own is not None:
        if own.isdecimal() and own.isascii():
            own, digits = None, own
        elif both := _PORT_AND_NAME.fullmatch(own):
            raise UsageError(
                f"{text!r}: with a port and a model's name write ssh://{found['host']}:{both[1]}/{both[2]}"
            )
    if own is not None or name is not None:
        check_name(name if own is None else own, text)
    host = found["host"]
    user, at, address = host.rpartition("@")
    port = int(digits[:6]) if digits else None
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"{text!r}: {digits} is no port; write 1 to 65535")
    return Target(f"{user}{at}{address.strip('[]')}", own or name, port)


def check_name(name: str | None, where: str) -> None:
    """Check that a model can have this name.

    Raises:
        UsageError: it can't.
    """
    if not name or not NAME.fullmatch(name):
        raise UsageError(
            f"{where}: {(name or '')[:80]!r} can't name a model; use letters, digits, dots, dashes and underscores, "
            f"at most 64 of them, a letter or digit first"
        )
