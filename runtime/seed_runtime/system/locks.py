"""Locks that end with their process, however it ends, and folders that are on the disk once they are made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError
from seed_runtime.system.atomic import sync_folder

_POLL: Final = 0.1
"""Seconds between two tries for a lock."""


class BusyError(UsageError):
    """Another process changes this model."""


def take(path: Path, wait_s: float, busy: str, *, make: bool = True, waiting: Callable[[], None] = lambda: None) -> int:
    """A descriptor of the file at `path`, locked; close it to let go. BusyError with this text after `wait_s`.

    `waiting` is called before each new try.
    """
    deadline = time.monotonic() + wait_s
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    while True:
        make_folder(path.parent)
        descriptor = os.open(path, flags, 0o600)
        if _locks(descriptor):
            # Renamed or removed meanwhile: what we hold is not what stands there now.
            if is_at(descriptor, path):
                return descriptor
            os.close(descriptor)
            continue
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise BusyError(busy)
        waiting()
        time.sleep(_POLL)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether it is this open file that stands at `path`."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_folder(path: Path) -> None:
    """The folder and its parents, on the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)
