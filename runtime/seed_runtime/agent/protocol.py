"""What the agent and its client say to each other: one JSON object per line, UTF-8, at most 1 MiB.

    the agent's first line   {"agent": 1, "runtime": "0.1.0", "python": "3.11.2"}
    a request                {"op": "switch", "name": "magika", "digest": "...", "keep": 3}
    on the way to an answer  {"progress": ["switch", 0, 1]}
    an answer                {"ok": true, ...} or {"ok": false, "exit": 14, "kind": "MemoryBudgetError", "error": "..."}

While a request is carried out there is a line at least every BEAT_S: where there is no progress, the last one is
repeated. A client may take longer silence for a device that hangs.
Every field of a request is checked against the table here before anything is done; fields that aren't in it are
passed over, as a newer client may send more.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from seed_runtime.agent.store.installed_model import DIGEST, NAME
from seed_runtime.errors import DiskSpaceError, SeedError, TrustError, UsageError
from seed_runtime.limits import FILE_MAX, WEIGHTS_MAX
from seed_runtime.version import __version__

PROTOCOL: Final = 1
LINE_MAX: Final = 1 << 20
WAIT_MAX: Final = 600
"""Seconds that a request may wait for another push to end."""
KEEP_MAX: Final = 64
LINES_MAX: Final = 1000
MEMORY_MAX: Final = 1 << 50
STEPS: Final = ("begin", "receive", "verify", "assemble", "golden", "place", "switch", "prune")
"""Names of steps in progress lines, in the order of a push."""

_PREFIX: Final = re.compile(r"[0-9a-f]{6,64}")
_ADDRESS: Final = re.compile(r"unix|127\.0\.0\.1:[0-9]{1,5}")
_PAUSE: Final = 0.1
"""Seconds between two progress lines of a step; its first and its last are always sent."""
BEAT_S: Final = 10.0
STUCK_S: Final = 3600.0
"""Without progress for so long an operation hangs itself, such as on a disk that died: nothing is repeated any more."""
_REQUIRED: Final = object()


@dataclass(frozen=True)
class Field:
    """What one field of a request may be: text that fits `pattern`, or a whole number, a number, a truth value."""

    kind: type
    default: Any = _REQUIRED
    pattern: re.Pattern[str] | None = None
    most: int = 0
    least: int = 0
    text: str = ""
    """How to say what is expected."""

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    def check(self, name: str, value: Any) -> Any:
        if value is None and not self.required:
            return self.default
        # True is an int to Python.
        right = isinstance(value, self.kind) and isinstance(value, bool) == (self.kind is bool)
        if self.kind is float:
            right = isinstance(value, int | float) and not isinstance(value, bool)
        if right and self.pattern:
            right = self.pattern.fullmatch(value) is not None
        elif right and self.kind is not bool:
            right = self.least <= value <= self.most
        if not right:
            raise UsageError(f"{name} is {json.dumps(value)[:80]}; give {self.text or f'{self.least} to {self.most}'}")
        return value

    def read(self, name: str, text: str) -> Any:
        """The value of `text`, as people write it on a command line."""
        value: Any = text
        if text == "null":
            value = None
        elif self.kind is bool:
            value = {"true": True, "false": False}.get(text, text)
        elif self.kind in (int, float) and re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", text):
            value = float(text) if "." in text else int(text)
        return self.check(name, value)


def _name(**options: Any) -> Field:
    return Field(str, pattern=NAME, text="letters, digits, dots and dashes, at most 64", **options)


_DIGEST = Field(str, pattern=DIGEST, text="a digest of 64 hexadecimal digits")
_SOME_DIGEST = Field(str, None, _PREFIX, text="at least 6 hexadecimal digits of a digest")
_MEMORY = Field(int, None, most=MEMORY_MAX, least=1)

OPERATIONS: Final[Mapping[str, Mapping[str, Field]]] = {
    "facts": {},
    "status": {"name": _name(default=None)},
    "begin": {
        "name": _name(),
        "digest": _DIGEST,
        "file_size": Field(int, most=FILE_MAX, least=1),
        "weights_bytes": Field(int, 0, most=WEIGHTS_MAX),
        "wait_s": Field(float, 0, most=WAIT_MAX),
    },
    "resume": {"have": Field(int, most=FILE_MAX)},
    "install": {"name": _name(), "digest": _DIGEST, "max_memory": _MEMORY},
    "switch": {"name": _name(), "digest": _DIGEST, "keep": Field(int, 3, most=KEEP_MAX, least=1)},
    "rollback": {"name": _name(), "to": _SOME_DIGEST},
    "remove": {
        "name": _name(),
        "digest": _SOME_DIGEST,
        "all": Field(bool, False, text="true or false"),
    },
    "log": {"name": _name(), "lines": Field(int, 20, most=LINES_MAX, least=1)},
    "service": {
        "name": _name(),
        "action": Field(str, pattern=re.compile("install|remove|status"), text="install, remove or status"),
        "address": Field(str, None, _ADDRESS, text="unix or 127.0.0.1:PORT"),
        "memory_max": _MEMORY,
    },
    "release": {},
}


class Gone(BaseException):
    """The client has left, or speaks something else: there is nobody to answer."""


class Wire:
    """The agent's end of the line. Requests come from a descriptor, lines go to a stream."""

    def __init__(self, source: int, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._read = bytearray()
        """What has come of requests that were not asked for yet."""
        self._told: tuple[str, float] = ("", 0.0)
        self._speaking = threading.Lock()
        self._last: tuple[tuple[str, int, int], float] = (("", 0, 0), 0.0)
        """The newest progress, and when that was."""

    def hello(self) -> None:
        self.send({"agent": PROTOCOL, "runtime": __version__, "python": ".".join(map(str, sys.version_info[:3]))})

    def request(self, idle: Callable[[], None]) -> dict[str, Any] | None:
        """The next request; None at the end. UsageError for a line that is no object.

        `idle` is called about once a second for as long as nothing comes.
        """
        line = self._line(idle)
        if line is None:
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UsageError("a request is one JSON object on a line")
        return found

    def _line(self, idle: Callable[[], None]) -> bytes | None:
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > LINE_MAX:
                error = UsageError(f"a request is longer than {LINE_MAX:,} bytes; send one object per line")
                self.send(answer_for(error))
                raise Gone
            while not select.select([self._source], [], [], 1.0)[0]:
                idle()
            data = os.read(self._source, 1 << 16)
            if not data:
                return None  # a request that is cut was not meant to be carried out
            self._read += data
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def send(self, message: Mapping[str, Any]) -> None:
        try:
            with self._speaking:
                self._write(message)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None

    def report(self, step: str, done: int, total: int) -> None:
        """Tell how far a step is, not too often."""
        now = time.monotonic()
        self._last = ((step, done, total), now)
        last, told = self._told
        if step == last and 0 < done < total and now - told < _PAUSE:
            return
        self._told = (step, now)
        self.send({"progress": [step, done, total]})

    @contextlib.contextmanager
    def beating(self, op: str) -> Iterator[None]:
        """Let the client hear that this operation is under way for as long as the block runs."""
        self._last = ((op, 0, 0), time.monotonic())
        over = threading.Event()
        # A daemon: the process ends though nobody reads what it is about to say.
        threading.Thread(target=self._beat, args=(over,), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            with self._speaking:
                progress, when = self._last
                # Nothing comes behind the answer, which is sent once it is over.
                if over.is_set() or time.monotonic() - when > STUCK_S:
                    return
                try:
                    self._write({"progress": progress})
                except OSError:
                    return  # the operation's next word will tell

    def _write(self, message: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        while line:
            line = line[self._sink.write(line) :]
        self._sink.flush()


def checked(request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation and all its fields, each of which is what the table says. UsageError otherwise."""
    op = request.get("op")
    if not isinstance(op, str) or op not in OPERATIONS:
        raise UsageError(f"op is {json.dumps(op)[:80]}; this runtime ({__version__}) knows {', '.join(OPERATIONS)}")
    return op, {name: field.check(name, request.get(name)) for name, field in OPERATIONS[op].items()}


def answer_for(error: Exception) -> dict[str, Any]:
    """What a client is told of a failure: exit code, class and one line (docs/exit-codes.md)."""
    kind, code, text = _explain(error)
    return {"ok": False, "exit": code, "kind": kind, "error": " ".join(text.split())}


def _explain(error: Exception) -> tuple[str, int, str]:
    if isinstance(error, DiskSpaceError):
        # Its own text speaks of seed-run's flags.
        short = f"{error.needed:,} bytes are needed in {error.folder} and {error.free:,} are free"
        return "DiskSpaceError", 13, f"{short}; {_FREE_SOME}"
    if isinstance(error, TrustError) and _is_full(error.__context__):
        return "DiskSpaceError", 13, f"{error.__context__}; {_FREE_SOME}"
    if isinstance(error, SeedError):
        return type(error).__name__, error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return (
            "MemoryBudgetError",
            14,
            "this device has no memory left; stop what else runs on it, or use a smaller model",
        )
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        if _is_full(error):
            return "DiskSpaceError", 13, f"{what}; {_FREE_SOME}"
        if error.errno == errno.EROFS:
            return "UsageError", 2, f"{what}; make it writable: sudo mount -o remount,rw {_mount(error.filename)}"
        if error.errno in _SETTING:
            return (
                "UsageError",
                2,
                f"{what}; change its permissions, or set SEED_HOME to a folder that can be written to",
            )
        return "SeedError", 1, what
    return (
        "SeedError",
        1,
        f"internal error: {type(error).__name__}: {error}; run it with SEED_DEBUG=1 and report the traceback",
    )


_SETTING: Final = (
    errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG
)  # fmt: skip
_FREE_SOME: Final = "free some space on the device, such as with: seed-deploy remove HOST:NAME"


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _mount(path: Any) -> str:
    """Where the file system begins that holds this path."""
    found = os.path.abspath(path) if isinstance(path, str | os.PathLike) else os.path.expanduser("~")
    while not os.path.ismount(found):
        found = os.path.dirname(found)
    return str(found)
