"""The history of a model on this device: one JSON object per line, appended and flushed to the disk.

    {"time": "2026-03-01T12:00:00+00:00", "what": "switch", "digest": "...", "result": "ok"}

The order of the lines is the order of events. The time is for people, as clocks of small devices are often wrong.
Torn lines, and zeros that a power cut left, are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from seed_runtime.system.files import atomic_write
from seed_runtime.system.sync import sync_folder

FILE: Final = "history.jsonl"
"""The name of the file in the model's folder."""
FILE_MAX: Final = 1 << 20
"""Size in bytes above which the file is replaced by its newest half."""
_RESULT_MAX: Final = 500
"""Longest text of an error in a line, in characters."""
_RUNS: Final = ("switch", "rollback")
"""Events after which another version runs."""

Line = dict[str, Any]
"""One event."""


def now() -> str:
    """Return the time in UTC, as it stands in the history."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(folder: Path, what: str, digest: str, result: str = "ok") -> None:
    """Append an event, which is on the disk when this returns.

    Args:
        folder: the model's folder.
        what: "install", "switch" or "rollback".
        digest: the version.
        result: "ok", or the text of an error.
    """
    path = folder / FILE
    line = json.dumps({"time": now(), "what": what, "digest": digest, "result": result[:_RESULT_MAX]}).encode() + b"\n"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        is_torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        data = b"\n" + line if is_torn else line
        try:
            if file.write(data) != len(data):
                raise OSError(28, os.strerror(28), str(path))
            os.fsync(file.fileno())
        except OSError:
            # The next line must not be appended to half of this one.
            os.ftruncate(file.fileno(), size)
            raise
    if not size:
        sync_folder(folder)
    if size > FILE_MAX:
        _halve(path)


def read(folder: Path) -> list[Line]:
    """Return all whole lines, the oldest first; none if the file can't be read."""
    try:
        with open(os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            data = file.read(2 * FILE_MAX)
    except OSError:
        return []
    lines = []
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(isinstance(line.get(key), str) for key in ("what", "digest", "result")):
            lines.append(line)
    return lines


def runs(lines: Sequence[Line]) -> list[str]:
    """Return digests in the order in which they began to run; one that ran again is listed again."""
    return [line["digest"] for line in lines if line["what"] in _RUNS and line["result"] == "ok"]


def only_installed(lines: Sequence[Line]) -> set[str]:
    """Return versions that were installed and never switched to, not even in vain: bases sent below other versions."""
    tried = {line["digest"] for line in lines if line["what"] in _RUNS}
    return {line["digest"] for line in lines if line["what"] == "install"} - tried


def previous(lines: Sequence[Line], running: str | None, present: Collection[str]) -> str | None:
    """Return the version that a rollback would activate: the one that ran before `running`; None if there is none.

    A rollback also forgets the version that it leaves, so a second rollback goes further back. Where nothing older is
    left, it returns to the version that ran last.

    Args:
        lines: the history, the oldest event first.
        running: the current version.
        present: the versions that are stored.
    """
    stack: list[str] = []
    for line in lines:
        if line["what"] not in _RUNS or line["result"] != "ok":
            continue
        digest = line["digest"]
        if line["what"] == "rollback" and digest in stack:
            while stack[-1] != digest:
                stack.pop()
        elif not stack or stack[-1] != digest:
            stack.append(digest)
    # The last line is missing if the process was killed right after the switch itself.
    for digest in (*reversed(stack), *reversed(runs(lines))):
        if digest != running and digest in present:
            return digest
    return None


def newest_first(lines: Sequence[Line], present: Collection[str]) -> list[str]:
    """Sort the versions that are present by when they were last installed or activated, the newest first."""
    order = {line["digest"]: number for number, line in enumerate(lines) if line["result"] == "ok"}
    return sorted(present, key=lambda digest: (order.get(digest, -1), digest), reverse=True)


def _halve(path: Path) -> None:
    """Replace the file by its newest half, from the beginning of a line on."""
    data = path.read_bytes()
    with atomic_write(path) as file:
        file.write(data[data.index(b"\n", len(data) // 2) + 1 :])
