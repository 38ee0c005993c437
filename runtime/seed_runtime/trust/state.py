"""The list of accepted seeds, in the file `accepted.json` in the state folder.

    {"format": 1, "models": {MODEL ID: {"newest": VERSION, "accepted": {DIGEST: SECONDS, ...}, "kept": [DIGEST, ...],
                                        "made": {DIGEST: SECONDS, ...}}}}

SECONDS are since 1970, by the clock when the seed was accepted, or made. "kept" lists the seeds that are in a store:
they stay accepted until they are removed from it. "made" lists the seeds that this machine made itself. The file is
replaced in one step, by one process at a time (`accepted.lock`). A file that can't be read is an error, never an empty
list.
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
"""Largest size of `accepted.json`, in bytes."""
LISTED_MAX: Final = 64
"""Largest number of digests listed for a model beside the stored ones; the oldest are removed first."""
_NUMBER_MAX = (1 << 63) - 1


@dataclass
class AcceptedModel:
    """Seeds of one model that were accepted."""

    newest: int
    """Newest version of the model that was accepted."""
    digests: dict[str, int] = field(default_factory=dict)
    """Time at which each seed was accepted, by its digest and in that order, in seconds since 1970."""
    stored: set[str] = field(default_factory=set)
    """Digests of the seeds that are in a store."""
    made: dict[str, int] = field(default_factory=dict)
    """Time at which this machine made each seed itself, by its digest and in that order, in seconds since 1970."""

    def drop_oldest(self) -> None:
        """Remove the oldest digests beyond LISTED_MAX from each list, but none that is stored."""
        for listed in (self.digests, self.made):
            for digest in [digest for digest in listed if digest not in self.stored][:-LISTED_MAX]:
                del listed[digest]

    def forget(self, digest: str) -> None:
        """Remove a digest, if it is listed."""
        self.digests.pop(digest, None)
        self.stored.discard(digest)


State = dict[str, AcceptedModel]
"""Accepted seeds of all models, by model id."""


def file_path() -> Path:
    """Return where the list is, whether it exists or not.

    Raises:
        TrustError: this account has no home folder.
    """
    try:
        return paths.state_home() / "accepted.json"
    except UsageError:
        raise TrustError("there is no home folder to store accepted versions in; set HOME or XDG_STATE_HOME") from None


def read(path: Path) -> State:
    """Return the list; an empty one if there is no file yet.

    Raises:
        TrustError: the file can't be read, or is damaged.
    """
    import json  # imported here, as most machines check no signatures

    try:
        with path.open("rb") as file:
            data = file.read(STATE_MAX + 1)
    except FileNotFoundError as error:
        if not path.is_symlink():
            return {}
        raise _state_error(path, error) from None
    except OSError as error:
        raise _state_error(path, error) from None
    try:
        if len(data) > STATE_MAX:
            raise ValueError
        held: dict[str, Any] = json.loads(data)
        if held["format"] != 1:
            raise ValueError
        return {str(name): _parse_model(model) for name, model in held["models"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TrustError(
            f"{path} is damaged, so no seed is accepted; put it back from a backup, or remove it: "
            f"older versions are then accepted once more"
        ) from None


def _parse_model(held: Any) -> AcceptedModel:
    model = AcceptedModel(held["newest"], dict(held["accepted"]), set(held.get("kept", ())), dict(held.get("made", {})))
    for number in (model.newest, *model.digests.values(), *model.made.values()):
        if type(number) is not int or not 0 <= number <= _NUMBER_MAX:
            raise ValueError
    if not model.stored <= model.digests.keys():
        raise ValueError
    return model


@contextlib.contextmanager
def update(path: Path) -> Iterator[State]:
    """Give the list to the block to change it, and write it in one step unless the block fails.

    Raises:
        TrustError: it can't be read or written.
    """
    import json

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")) as lock:
            lock.acquire()
            yield (state := read(path))
            models = {
                name: {"newest": model.newest, "accepted": model.digests, "kept": sorted(model.stored)}
                | ({"made": model.made} if model.made else {})
                for name, model in state.items()
            }
            data = json.dumps({"format": 1, "models": models}).encode()
            if len(data) > STATE_MAX:
                raise TrustError(f"{path} is full; remove models from it that are no longer used")
            with atomic_write(path) as file:
                file.write(data)
    except (OSError, UsageError) as error:
        raise _state_error(path, error) from None


def _state_error(path: Path, error: Exception) -> TrustError:
    problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return TrustError(f"{path}: {problem}; accepted versions are stored there; let this user read and write it")
