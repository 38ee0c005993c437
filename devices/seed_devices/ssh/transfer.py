"""Send files over a connection, to a script of sh, cat, dd, ls and sleep: what every device has, BusyBox included.

No sftp: many small devices lack it, a start file that prints breaks it, and it is no faster (ADR 0012).
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from seed_devices.errors import RemoteError
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.pace import Pace
from seed_runtime.errors import UsageError

PATH_MAX: Final = 4096
"""Largest length of a path on a device, in characters."""
_BLOCK: Final = 1 << 16
"""Most bytes that are written at once."""
_LINE_MAX: Final = 64
"""Longest line of the script's output, in bytes."""

# Writes at an offset, not at the end: late bytes of an earlier push that was cut land where they belong. A count of 0
# with `seek` moves the offset that dd and cat share. The size on the disk is printed once a second; `ls -n` is the only
# way to it that all systems have and that doesn't read the file. What sleeps must not hold the output open.
# Once nobody reads the sizes the loop ends by itself: the shell that ends it may have been killed.
_RECEIVE: Final = (
    'exec 3<&0 4<>"$1" || exit; dd bs=1 seek="$2" count=0 >&4 || exit; '
    "while sleep 1 >/dev/null 2>&1 && "
    '(set -f; set -- $(ls -nd "$1"); echo "$5") 2>/dev/null; do :; done & '
    "cat <&3 >&4; code=$?; kill $!; exit $code"
)


def put(
    connection: Connection,
    local: Path,
    remote: str,
    start: int,
    *,
    max_rate: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Send a file, from `start` on: the bytes before that are there already.

    Args:
        connection: to the device.
        local: the file.
        remote: its absolute path on the device. Whether all of it is right in the end is the caller's to ask.
        start: the offset of the first byte that is sent.
        max_rate: the largest rate, in bytes per second; the connection's if None. Its `shared_pace` holds as well.
        progress: called with the bytes there and the bytes in all, read from the device once a second.

    Raises:
        RemoteError: the device refuses, with its words.
        UnreachableError: the link was lost.
        UsageError: the file can't be read.
    """
    if not remote.startswith("/") or len(remote) > PATH_MAX or any(ord(letter) < 32 for letter in remote):
        raise RemoteError(12, f"the device names {remote[:80]!r}, which is no path of a file; update its runtime")
    connection.hold()
    try:
        file = local.open("rb")
    except OSError as error:
        raise UsageError(f"{local}: {error.strerror}; give the path of a file that can be read") from None
    with file:
        total = file.seek(0, 2)
        file.seek(start)
        own = max_rate or connection.max_rate
        paces = [*([Pace(own)] if own else []), *([connection.shared_pace] if connection.shared_pace else [])]
        _send(connection, file, remote, start, total, paces, progress)


def _send(
    connection: Connection,
    file: IO[bytes],
    remote: str,
    start: int,
    total: int,
    paces: Sequence[Pace],
    progress: Callable[[int, int], None] | None,
) -> None:
    process = connection.popen(_RECEIVE, remote, str(start))
    unread: list[OSError] = []
    feeder = threading.Thread(target=_feed, args=(file, process.stdin, paces, unread), daemon=True)
    feeder.start()
    try:
        # The size there, not what was written here: up to 2 MB of that are on their way, the whole of many seeds.
        while line := connection.line(process, _LINE_MAX):
            if progress is not None and line.strip().isdigit():
                progress(min(int(line), total), total)
        code = process.wait()
    finally:
        # Before its pipes are closed: what still waits on one of them holds its lock.
        processes.kill(process, signal.SIGKILL)
        feeder.join()
        processes.stop(process)
    if unread:
        raise UsageError(f"{file.name}: {unread[0].strerror}; give a copy of the file that can be read")
    if code == 255 or code < 0:
        raise connection.failure(process)
    if code:
        lines = connection.stderr_of(process).splitlines()
        # dd prints what it copied, and some shells that a job of theirs was ended.
        reasons = [line.strip() for line in lines if ": " in line and "Terminated" not in line]
        reason = reasons[-1] if reasons else f"exit status {code}"
        host = connection.target
        raise RemoteError(
            1, f"{host}: the file can't be written there: {reason}; see: seed-deploy doctor {shlex.quote(host)}"
        )


def _feed(file: IO[bytes], pipe: IO[bytes], paces: Sequence[Pace], unread: list[OSError]) -> None:
    """Write the rest of a file to a pipe and close it; the command may end before it has read all of it.

    An error of the file itself is added to `unread`.
    """
    block = min([_BLOCK, *(pace.block for pace in paces)])
    with contextlib.suppress(OSError, ValueError):
        while data := _read(file, block, unread):
            pipe.write(data)
            pipe.flush()
            for pace in paces:
                pace.wait(len(data))
    with contextlib.suppress(OSError, ValueError):
        pipe.close()


def _read(file: IO[bytes], size: int, unread: list[OSError]) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        unread.append(error)
        return b""
