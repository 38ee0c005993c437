"""What this machine has accepted, kept in `accepted.json` in the state folder.

    {"format": 1, "models": {MODEL ID: {"newest": VERSION, "accepted": {DIGEST: SECONDS, ...}, "kept": [DIGEST, ...]}}}

SECONDS are since 1970, by the clock of the moment when the seed was accepted. What is kept in a store stays listed
until it is struck off. The file is replaced in one step, by one
process at a time (`accepted.lock`). One that can't be read is an error, never an empty list.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from seed_runtime.errors import TrustError, UsageError
from seed_runtime.system import paths
from seed_runtime.system.files import atomic_write
from seed_runtime.system.locks import FileLock

STATE_MAX: Final = 4 << 20
"""Bytes of `accepted.json`."""
LISTED_MAX: Final = 64
"""Digests that stay listed of a model beside the kept ones: those that were accepted first go first."""
_NUMBER_MAX = (1 << 63) - 1


@dataclass
class Accepted:
    """Of one model: its newest version, and the time [s] at which each digest was accepted, in that order."""

    newest: int
    digests: dict[str, int] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    """Those of the digests that a store keeps."""

    def limit(self) -> None:
        """Strike the oldest off that are too many; never one that is kept."""
        for digest in [digest for digest in self.digests if digest not in self.kept][:-LISTED_MAX]:
            del self.digests[digest]

    def forget(self, digest: str) -> None:
        self.digests.pop(digest, None)
        self.kept.discard(digest)


State = dict[str, Accepted]
"""By model id."""


def file_path() -> Path:
    """The file, whether it is there or not."""
    try:
        return paths.state_home() / "accepted.json"
    except UsageError:
        raise TrustError("there is no home folder to keep accepted versions in; set HOME or XDG_STATE_HOME") from None


def read(path: Path) -> State:
    """What was accepted; nothing where there is no file yet."""
    import json  # here, as most machines check no signatures

    try:
        with path.open("rb") as file:
            data = file.read(STATE_MAX + 1)
    except FileNotFoundError as error:
        if not path.is_symlink():
            return {}
        raise _unkept(path, error) from None
    except OSError as error:
        raise _unkept(path, error) from None
    try:
        if len(data) > STATE_MAX:
            raise ValueError
        held: dict[str, Any] = json.loads(data)
        if held["format"] != 1:
            raise ValueError
        return {str(name): _model(model) for name, model in held["models"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TrustError(
            f"{path} is damaged, so no seed is taken; put it back from a backup, or remove it: "
            f"older versions are then taken once more"
        ) from None


def _model(held: Any) -> Accepted:
    model = Accepted(held["newest"], dict(held["accepted"]), set(held.get("kept", ())))
    for number in (model.newest, *model.digests.values()):
        if type(number) is not int or not 0 <= number <= _NUMBER_MAX:
            raise ValueError
    if not model.kept <= model.digests.keys():
        raise ValueError
    return model


@contextlib.contextmanager
def changed(path: Path) -> Iterator[State]:
    """What was accepted, to be changed; written in one step unless the block fails."""
    import json

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")) as lock:
            lock.acquire()
            yield (state := read(path))
            models = {
                name: {"newest": model.newest, "accepted": model.digests, "kept": sorted(model.kept)}
                for name, model in state.items()
            }
            data = json.dumps({"format": 1, "models": models}).encode()
            if len(data) > STATE_MAX:
                raise TrustError(f"{path} is full; remove models from it that are no longer used")
            with atomic_write(path) as file:
                file.write(data)
    except (OSError, UsageError) as error:
        raise _unkept(path, error) from None


def _unkept(path: Path, error: Exception) -> TrustError:
    problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return TrustError(f"{path}: {problem}; accepted versions are kept there, let this user read and write it")
