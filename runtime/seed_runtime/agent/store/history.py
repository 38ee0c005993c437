"""What happened to a model on this device: one JSON object per line, appended and flushed to the disk.

    {"time": "2026-03-01T12:00:00+00:00", "what": "switch", "digest": "...", "result": "ok"}

The order of the lines is the order of events; the time is for people, as clocks of small devices are often wrong.
A line that is torn, or zeros that a power cut left, is passed over.
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
FILE_MAX: Final = 1 << 20
"""Bytes; a longer file is replaced by its newest half."""
_RESULT_MAX: Final = 500
"""Characters of an error's text."""

Line = dict[str, Any]
_RUNS: Final = ("switch", "rollback")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(folder: Path, what: str, digest: str, result: str = "ok") -> None:
    """Add a line, on the disk when this returns."""
    path = folder / FILE
    line = json.dumps({"time": now(), "what": what, "digest": digest, "result": result[:_RESULT_MAX]}).encode() + b"\n"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and _last_byte(file.fileno(), size) != b"\n"
        data = b"\n" + line if torn else line
        try:
            if file.write(data) != len(data):
                raise OSError(28, os.strerror(28), str(path))
            os.fsync(file.fileno())
        except OSError:
            # What stands there half must not meet the next line.
            os.ftruncate(file.fileno(), size)
            raise
    if not size:
        sync_folder(folder)
    if size > FILE_MAX:
        _halve(path)


def read(folder: Path) -> list[Line]:
    """All whole lines, the oldest first."""
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
    """Digests in the order in which they began to run; one that runs again stands again."""
    return [line["digest"] for line in lines if line["what"] in _RUNS and line["result"] == "ok"]


def previous(lines: Sequence[Line], running: str | None, present: Collection[str]) -> str | None:
    """Where a rollback leads: the version that ran before `running`, of those that are present.

    A rollback leaves what it went back from behind, so a second one goes further back; where nothing older is left,
    it returns to what ran last.
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
    # The last line is missing if the process was killed just behind the switch itself.
    for digest in (*reversed(stack), *reversed(runs(lines))):
        if digest != running and digest in present:
            return digest
    return None


def newest_first(lines: Sequence[Line], present: Collection[str]) -> list[str]:
    """The versions that are present, those that were installed or ran last first."""
    order = {line["digest"]: number for number, line in enumerate(lines) if line["result"] == "ok"}
    return sorted(present, key=lambda digest: (order.get(digest, -1), digest), reverse=True)


def _last_byte(descriptor: int, size: int) -> bytes:
    return os.pread(descriptor, 1, size - 1)


def _halve(path: Path) -> None:
    data = path.read_bytes()
    with atomic_write(path) as file:
        file.write(data[data.index(b"\n", len(data) // 2) + 1 :])
