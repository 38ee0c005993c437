"""Tell the host what an installation is at and what came of it. Sent to the device before installer.py, which uses it.

Standard library only. One JSON object a line on stdout, `{"progress": [phase, done, total]}` before an answer, the last
one again every BEAT_S.
"""

# Python before 3.11 must get as far as reporting its version.
from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from typing import Any

BEAT_S, BEATS = 10, 360
"""Seconds between two reports of the same progress, and the number of times that an operation's is repeated at most."""


class RefusalError(Exception):
    """A reason not to install that the user must know, with the exit code for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text


STDOUT_LOCK = threading.Lock()
LAST: list[Any] = ["start", 0, 0]
"""The newest progress."""


def progress(phase: str, done: int, total: int) -> None:
    """Report progress to the host."""
    LAST[:] = phase, done, total
    send({"progress": LAST})


def send(answer: dict[str, Any]) -> None:
    """Write one line to the host, whole."""
    line = json.dumps(answer).encode() + b"\n"
    with STDOUT_LOCK:
        while line:
            line = line[os.write(1, line) :]


def beat(over: threading.Event) -> None:
    """Report the newest progress again until the operation is over, for as long as one may take that doesn't hang."""
    with contextlib.suppress(OSError):
        for _ in range(BEATS):
            if over.wait(BEAT_S):
                return
            send({"progress": LAST})


def explain(error: Exception) -> dict[str, Any]:
    """Return an error as an answer."""
    if isinstance(error, RefusalError):
        return {"ok": False, "exit": error.code, "kind": "RefusalError", "error": error.text}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"ok": False, "exit": 13, "kind": "OSError", "error": "its disk is full; free some space"}
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        text = f"{error.filename} can't be written to there; mount it writable, or set SEED_HOME to a folder that is"
        return {"ok": False, "exit": 12, "kind": "OSError", "error": text}
    text = f"installing failed there: {type(error).__name__}: {error}; report it"
    return {"ok": False, "exit": 1, "kind": type(error).__name__, "error": text}
