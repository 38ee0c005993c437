"""Child processes that never outlive this one, and that can all be ended at once."""

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

END_S: Final = 2
_TERM_S: Final = 0.3
ERROR_TAIL: Final = 64 << 10
"""Bytes of stderr that are kept, the last ones."""

# Ends the command once stdin does, which is when this process closes it or ends, even by SIGKILL.
GUARDED = """\
exec 3<&0
"$@" </dev/null & command=$!
{ cat <&3 >/dev/null; kill "$command"; } 2>/dev/null & guard=$!
wait "$command"; code=$?
kill "$guard" 2>/dev/null
exit "$code"
"""

_children: set[subprocess.Popen[bytes]] = set()
_children_lock = threading.Lock()
_ending = threading.Event()


def start(
    argv: list[str], *, stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes] | None
) -> subprocess.Popen[bytes]:
    """A child that `end_all` will find, in a session of its own: no terminal to ask on, no Ctrl-C from there."""
    if _ending.is_set():
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
    if _ending.is_set():
        kill(process)
    return process


def end(process: subprocess.Popen[bytes], patience_s: float = END_S) -> None:
    """Close its stdin and wait for it, then less and less politely."""
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


def end_all() -> None:
    """End every child, and let none be started from now on: what waits for them fails and returns."""
    _ending.set()
    with _children_lock:
        children = list(_children)
    for process in children:
        kill(process)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Send a signal to it and to what it started."""
    if process.poll() is None:
        # Its jump hosts' ssh is in the same group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def feed(pipe: IO[bytes] | None, data: bytes) -> None:
    """Write all of it, unless the command ends before it has read that."""
    if pipe is not None:
        with contextlib.suppress(OSError, ValueError):
            pipe.write(data)
            pipe.close()


@contextlib.contextmanager
def limited(process: subprocess.Popen[bytes], limit_s: float | None) -> Iterator[threading.Event]:
    """Kill the process after so many seconds; the event tells that it was."""
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


def begin() -> None:
    """Let children be started again, after an `end_all` that another command called."""
    _ending.clear()


def ending() -> bool:
    """Whether `end_all` has been called."""
    return _ending.is_set()


class Tail:
    """Reads a pipe to its end in the background, and keeps the last ERROR_TAIL bytes."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._kept = pipe, bytearray()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()
        self.join = self._thread.join

    def text(self) -> str:
        return bytes(self._kept).decode(errors="replace")

    def _drain(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 1 << 14):
                self._kept += data
                del self._kept[:-ERROR_TAIL]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # ssh's own words are always English, the C library's are not.
    if "LC_ALL" in environment:
        environment["LANG"] = environment.pop("LC_ALL")
    environment.pop("LANGUAGE", None)
    return environment | {"LC_MESSAGES": "C", "SSH_ASKPASS_REQUIRE": "never"}
