"""Command lines of ssh and sftp for one device; the user's own configuration holds for everything that isn't set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seed_devices.errors import RemoteError
from seed_devices.ssh import processes
from seed_runtime.errors import UsageError

LINK_DEAD_S: Final = 15
"""Seconds after which a login that isn't answered, or a connection that is silent, counts as dead."""
PATH_MAX: Final = 4096
"""Largest length of a path on a device, in characters."""

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
            control_path: the socket of the shared connection, as ssh_config takes it.
            master: whether this process opens that connection, or uses it.
        """
        port = [] if self.port is None else ["-p", str(self.port)]
        return ["ssh", *self._options(control_path, master), "-T", *port, "--", self.target, command]

    def sftp(self, batch: Path, control_path: str, limit_kbit: int | None) -> list[str]:
        """Return the command line that runs an sftp batch file over the shared connection.

        Args:
            batch: the file of commands.
            control_path: the socket of the connection.
            limit_kbit: the largest rate in units of 1024 bits per second, as sftp counts.
        """
        argv = ["sh", "-c", processes.GUARDED, "sh", "sftp", *self._options(control_path, False)]
        argv += [] if self.port is None else ["-P", str(self.port)]
        argv += [] if limit_kbit is None else ["-l", str(max(1, limit_kbit))]
        return [*argv, "-b", str(batch), "--", bracketed(self.target)]

    def _options(self, control_path: str, master: bool) -> Sequence[str]:
        options = {
            **_OPTIONS,
            "StrictHostKeyChecking": "accept-new" if self.accept_new else "yes",
            "ControlMaster": "yes" if master else "no",
            "ControlPath": control_path,
        }
        if not master:
            # Without the shared connection ssh would log in again, with the whole wait on a dead link once more.
            options["ProxyCommand"] = "false"
        words = ["-F", str(self.config.absolute())] if self.config is not None else []
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        return words


def quoted(path: str) -> str:
    """Quote a path of the device for sftp's batch files.

    Raises:
        RemoteError: it is relative, too long, or would be another command.
    """
    if not path.startswith("/") or len(path) > PATH_MAX or any(ord(letter) < 32 for letter in path):
        raise RemoteError(12, f"the device names {path[:80]!r}, which is no path that sftp takes; update its runtime")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def bracketed(target: str) -> str:
    """Put an IPv6 address into the brackets that sftp wants."""
    user, at, host = target.rpartition("@")
    return f"{user}{at}[{host}]" if ":" in host and not host.startswith("[") else target
