"""Command lines of ssh for one device; the user's own configuration holds for everything that isn't set."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError

LINK_DEAD_S: Final = 15
"""Seconds after which a login that isn't answered, or a connection that is silent, counts as dead."""
BY_HAND: Final = "~/.ssh/seed-%C"
"""Where a connection is looked for that the user opened by hand, as ssh's ControlPath."""

_OPTIONS: Final = {
    "BatchMode": "yes",
    "ConnectTimeout": str(LINK_DEAD_S),
    "ConnectionAttempts": "1",
    "ServerAliveInterval": str(LINK_DEAD_S // 4),
    "ServerAliveCountMax": "3",
    "ControlPersist": "no",
    "LogLevel": "INFO",
    "EscapeChar": "none",
    # A user's RequestTTY or forwardings are for working there, not for carrying files.
    "RequestTTY": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
}


@dataclass(frozen=True)
class Route:
    """Route by which ssh reaches a device.

    Args:
        target: `[user@]host`, or an alias of ssh_config.
        config: an ssh_config in place of the user's (`-F`).
        accept_new: accept the key of a host that was never seen; a changed one is refused all the same.
        port: in place of the configuration's.

    Raises:
        UsageError: ssh would take the target for an option, or there is no such ssh_config.
    """

    target: str
    config: Path | None = None
    accept_new: bool = False
    port: int | None = None

    def __post_init__(self) -> None:
        if not self.target or self.target.startswith("-") or any(ord(letter) <= 32 for letter in self.target):
            raise UsageError(f"{self.target!r} is no host; write [user@]host, or an alias of your ssh_config")
        if self.config is not None and not self.config.is_file():
            raise UsageError(f"{self.config}: there is no such ssh_config; give another path with -F")

    def ssh(self, command: str, control_path: str, *, master: bool) -> list[str]:
        """Return the command line that runs a shell command on the device.

        Args:
            command: for the login shell there.
            control_path: the socket of the shared connection.
            master: whether this process opens that connection, or uses it.
        """
        options = {
            **_OPTIONS,
            "StrictHostKeyChecking": "accept-new" if self.accept_new else "yes",
            "ControlMaster": "yes" if master else "no",
        }
        if not master:
            # Without the shared connection ssh would log in again, with the whole wait on a dead link once more.
            options["ProxyCommand"] = "false"
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", *self._where(), *words, "-S", _escaped(control_path), "-T", "--", self.target, command]

    def resolved(self, control_path: str | None) -> list[str]:
        """Return the command line that prints the configuration for the device, with this ControlPath if one is given.

        Only what ssh prints can be passed on: ProxyCommand, which `ssh` sets, is a part of what "%C" stands for.
        """
        return ["ssh", *self._where(), *([] if control_path is None else ["-S", control_path]), "-G", "--", self.target]

    def check(self, control_path: str) -> list[str]:
        """Return the command line that returns 0 if a ControlMaster answers at this socket."""
        return ["ssh", *self._where(), "-S", _escaped(control_path), "-O", "check", "--", self.target]

    @property
    def by_hand(self) -> str:
        """Return the command with which a user opens a connection that `user_master.find` finds."""
        # The shell expands the "~" of a word that is not quoted.
        return f"{shlex.join(['ssh', *self._where()])} -fNM -S {BY_HAND} {shlex.quote(self.target)}"

    def _where(self) -> list[str]:
        words = ["-F", str(self.config.absolute())] if self.config is not None else []
        return words if self.port is None else [*words, "-p", str(self.port)]


def _escaped(path: str) -> str:
    """Return a path as ssh's options take it, in which "%" is special."""
    return path.replace("%", "%%")
