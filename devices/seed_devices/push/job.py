"""One push to one device as a record: what was asked for, the clock of its phases, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from seed_devices.push.candidates import Candidates
from seed_devices.push.preflight import SeedFile
from seed_devices.remote.agent_client import Progress
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.pace import Pace

TRANSFER: Final = "transfer"
"""The phase whose progress counts bytes on their way to the device."""


@dataclass(frozen=True)
class Options:
    """Options of a push. Sizes are in bytes, the rate is in bytes per second."""

    max_rate: int | None = None
    """Largest rate of each push."""
    shared_pace: Pace | None = None
    """Largest rate of all pushes together that are made with this record."""
    max_memory: int | None = None
    keep: int = 3
    service: bool = False
    address: str | None = None
    online: bool = False
    update_runtime: bool = False
    """True to install this host's runtime also where the one there is as new as the seed needs."""
    dry_run: bool = False
    python: str | None = None
    """Python of the device to make its runtime with, a path or a command; None for the best one."""
    replace: bool = False
    """True to let the seed replace a model of another id that has the same name on the device."""


@dataclass(frozen=True)
class PushResult:
    """Result of a push; its fields are those of `--json`."""

    name: str
    digest: str
    state: str
    """Outcome: "unchanged", "switched" (the device had kept it), "pushed", or "would ..." in a dry run."""
    sent: int = 0
    """Bytes of the seed, and of its bases where these were missing, that were sent, or would be."""
    file: str | None = None
    """Path of the seed that runs there, or would."""
    is_given: bool = True
    """False if that is one that was named beside the given one."""
    delta: dict[str, Any] | None = None
    """What runs there, if it stands on another version: its `file`, its `bytes`, `base` and `base_version`, and how
    many bases were sent `with` it. None for a whole seed."""
    whole_bytes: int | None = None
    """Bytes of the whole seed of this version, if it was given or named, else of the delta and all that it stands on;
    None where a base isn't on this machine."""
    runtime_sent: int | None = 0
    """Bytes of the runtime's wheels that were sent, or would be; None where a dry run couldn't find out."""
    previous: str | None = None
    removed: list[str] = field(default_factory=list)
    facts: dict[str, Any] | None = None
    """Facts that the device reported about itself; None where it wasn't asked."""
    record: dict[str, Any] | None = None
    runtime: str | None = None
    runtime_installed: bool = False
    service: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds that each phase took."""

    @property
    def all_sent(self) -> int:
        """Return the bytes of the seed and of the runtime that were sent, or would be."""
        return self.sent + (self.runtime_sent or 0)

    def as_json(self) -> dict[str, Any]:
        """Return the fields for `--json`, seconds rounded to milliseconds."""
        return {**vars(self), "seconds": {phase: round(value, 3) for phase, value in self.seconds.items()}}


class Phases:
    """The clock of a push's phases, which also reports them. `seconds` is what each has taken so far."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}
        self.sent_before = self.to_send_after = 0
        """Bytes that other transfers of this push have sent, and will send: progress counts all of them as one."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Report the phase, and count the time that the block takes as part of it."""
        if self._progress is not None:
            self._progress(name, 0, 0)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def progress_of(self, name: str) -> Progress | None:
        """Return a progress callback for parts of a phase, which the device names; None where nobody looks."""
        if self._progress is None:
            return None
        show = self._progress

        def report(part: str, done: int, total: int) -> None:
            if part == TRANSFER and total:
                show(TRANSFER, self.sent_before + done, self.sent_before + total + self.to_send_after)
            else:
                show(part if part == name else f"{name}: {part}", done, total)

        return report


@dataclass(frozen=True)
class Job:
    """One version on its way to one device. `name` is the model's name there."""

    connection: Connection
    candidates: Candidates
    name: str
    options: Options
    phases: Phases

    @property
    def seed(self) -> SeedFile:
        """Return the seed that was given; another one that the user named may be sent in its place."""
        return self.candidates.given

    @property
    def host(self) -> str:
        """Return the device as the user wrote it."""
        return self.connection.target
