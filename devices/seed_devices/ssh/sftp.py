"""What sftp wants to be told, and what can be read of its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import IO, Final

from seed_devices.errors import RemoteError

PATH_MAX: Final = 4096
NOTHING_LEFT: Final = "same size"
"""Within what `reput` says, as a failure, where the last byte had arrived and only the answer to it was lost."""


def quoted(path: str) -> str:
    """A path as sftp's batch files take it."""
    if not path.startswith("/") or len(path) > PATH_MAX or any(ord(letter) < 32 for letter in path):
        raise RemoteError(12, f"the device names {path[:80]!r}, which is no path that sftp takes; update its runtime")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def bracketed(target: str) -> str:
    """The target, an IPv6 address in brackets."""
    user, at, host = target.rpartition("@")
    return f"{user}{at}[{host}]" if ":" in host and not host.startswith("[") else target


def report(pipe: IO[bytes], total: int, progress: Callable[[int, int], None]) -> None:
    """Pass on the sizes that stand on the lines of a pipe, to its end."""
    with contextlib.suppress(OSError, ValueError):
        while line := pipe.readline(64):
            if line.strip().isdigit():
                progress(min(int(line), total), total)
