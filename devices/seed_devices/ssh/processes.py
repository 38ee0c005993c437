"""Child processes that never outlive this process, and that can all be stopped at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import IO, Final

from seed_devices.errors import UnreachableError
from seed_runtime.errors import UsageError

STOP_S: Final = 2
"""Seconds that a child gets to end by itself."""
_TERM_S: Final = 0.3
"""Seconds that a child gets to end after SIGTERM."""
STDERR_TAIL: Final = 64 << 10
"""Size of the last part of a child's stderr that is remembered, in bytes."""

_children: set[subprocess.Popen[bytes]] = set()
_children_lock = threading.Lock()
_stopping = threading.Event()


def start(
    argv: list[str], *, stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes] | None
) -> subprocess.Popen[bytes]:
    """Start a child that `stop_all` will find, in a session of its own: no terminal to ask on, no Ctrl-C from there.

    Raises:
        UnreachableError: `stop_all` has been called.
        UsageError: there is no such program.
    """
    if _stopping.is_set():
        raise UnreachableError(argv[0], "stopped", "run the same command again")
    try:
        process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=stderr, env=_environment(), start_new_session=True
        )
    except FileNotFoundError:
        raise UsageError(
            "there is no ssh on this machine; install OpenSSH's client: apt install openssh-client"
        ) from None
    with _children_lock:
        _children.add(process)
    if _stopping.is_set():
        kill(process)
    return process


def stop(process: subprocess.Popen[bytes], patience_s: float = STOP_S) -> None:
    """Close a child's stdin and wait until it has ended; after `patience_s` send SIGTERM, and then SIGKILL."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    # A client of the shared connection waits for the device in spite of SIGTERM.
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _TERM_S)):
        try:
            process.wait(wait_s)
            break
        except subprocess.TimeoutExpired:
            kill(process, number)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    with _children_lock:
        _children.discard(process)


def stop_all() -> None:
    """Stop every child, and refuse to start more: what waits for them fails and returns."""
    _stopping.set()
    with _children_lock:
        children = list(_children)
    for process in children:
        kill(process)


def allow_starts() -> None:
    """Allow children to be started again, after a `stop_all` that an earlier command called."""
    _stopping.clear()


def is_stopping() -> bool:
    """Return True once `stop_all` has been called."""
    return _stopping.is_set()


def pause(seconds: float) -> None:
    """Wait, but no longer than until `stop_all` is called."""
    _stopping.wait(seconds)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Send a signal to a child and to what it started."""
    if process.poll() is None:
        # The ssh processes of its jump hosts are in the same group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def output(argv: list[str], timeout_s: float) -> tuple[int, str]:
    """Run a program of this machine that only prints something; returns its exit status, not 0 if it hangs, and that.

    Raises:
        UnreachableError: `stop_all` has been called.
        UsageError: there is no such program.
    """
    process = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        with killed_after(process, timeout_s):
            assert process.stdout is not None
            text = process.stdout.read(STDERR_TAIL).decode(errors="replace")
            return process.wait(), text
    finally:
        stop(process, 0)


def write_all(pipe: IO[bytes] | None, data: bytes) -> None:
    """Write `data` and close the pipe; the command may end before it has read all of it."""
    if pipe is not None:
        with contextlib.suppress(OSError, ValueError):
            pipe.write(data)
            pipe.close()


@contextlib.contextmanager
def killed_after(process: subprocess.Popen[bytes], limit_s: float | None) -> Iterator[threading.Event]:
    """Kill a child if the block takes longer than `limit_s`; the event says that it was killed."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        kill(process, signal.SIGKILL)

    timer = threading.Timer(limit_s or 0, expire)
    timer.daemon = True
    if limit_s is not None:
        timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


class Tail:
    """Reads a pipe to its end in the background, and remembers the last STDERR_TAIL bytes."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._bytes = pipe, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.join = self._thread.join

    def text(self) -> str:
        """Return what is remembered."""
        return bytes(self._bytes).decode(errors="replace")

    def _read(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 1 << 14):
                self._bytes += data
                del self._bytes[:-STDERR_TAIL]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # ssh's own messages are always English, the C library's are not.
    if "LC_ALL" in environment:
        environment["LANG"] = environment.pop("LC_ALL")
    environment.pop("LANGUAGE", None)
    return environment | {"LC_MESSAGES": "C", "SSH_ASKPASS_REQUIRE": "never"}
