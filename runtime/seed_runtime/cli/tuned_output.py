"""Files beside the seed that a fine-tune writes: its lock and its checkpoint, hidden, and with names of their own.

tuned.seed
.tuned.seed.seed-lock                 held while the run lasts; empty
.tuned.seed.seed-checkpoint           what the same command goes on from
.tuned.seed.seed-checkpoint.part      the same until it is whole
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError
from seed_runtime.system.locks import lock_within

_NAME_MAX: Final = 255
"""Longest name that common file systems take [B]."""
_ENDS: Final = (".seed-lock", ".seed-checkpoint", ".seed-checkpoint.part")


@contextlib.contextmanager
def reserved(output: str) -> Iterator[Path | None]:
    """Lock an output for the block, and give the path of its checkpoint; None for what isn't a file, as /dev/null.

    Raises:
        BusyError: another process writes it.
        UsageError: a file that no fine-tune made has the name of the lock or the checkpoint.
    """
    path = Path(os.path.realpath(output))
    if path.exists() and not path.is_file():
        yield None
        return
    lock_path, checkpoint, part = (path.with_name(_stem(path.name) + end) for end in _ENDS)
    for each in (lock_path, checkpoint, part):
        _check_own(each, is_empty=each is lock_path)
    busy = f"{output} is being tuned by another process; wait for it, or give -o another file"
    with lock_within(lock_path, 0, busy) as lock:
        try:
            yield checkpoint
        finally:
            # While it is held: who waits for it then finds that the name stands for another file, or none.
            if lock.is_in_place():
                lock.path.unlink()


def _stem(name: str) -> str:
    """Return how the files beside an output begin: with its name, or a digest of it where that is too long."""
    if len(os.fsencode(name)) + 1 + max(map(len, _ENDS)) <= _NAME_MAX:
        return f".{name}"
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"


def _check_own(path: Path, *, is_empty: bool) -> None:
    """Raise UsageError for a link, for another user's file, and for a lock that holds something."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or (is_empty and found.st_size):
        raise UsageError(f"{path} isn't a file of this command, which needs the name; move it, or give -o another file")
