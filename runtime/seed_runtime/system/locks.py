"""Locks between processes: flock on a file or a folder, released when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from seed_runtime.errors import UsageError
from seed_runtime.system.sync import make_folder

_POLL_S: Final = 0.1
"""Time between two attempts to take a lock that may be renamed or removed while waiting, in seconds."""


class BusyError(UsageError):
    """Another process holds the lock."""


class FileLock:
    """An open file or folder that can be locked, shared or exclusively.

    Opening takes no lock. Closing, which the end of a `with` block does, releases it, as does the end of the process.
    No link is followed.

    Lock files are never removed by those who only wait for them: removing one while another process waits for it
    would leave two processes with locks on two files of one name.
    """

    def __init__(self, path: Path, *, create: bool = True, folder: bool = False) -> None:
        """Open the file at `path`.

        Args:
            path: the file, created with mode 0600 if it doesn't exist, or the folder.
            create: whether a missing file is created.
            folder: lock an existing folder instead of a file.

        Raises:
            OSError: it can't be opened.
        """
        kind = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | (os.O_CREAT if create else 0)
        self.path = path
        self.descriptor = os.open(path, kind | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __enter__(self) -> FileLock:
        """Take no lock yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def acquire(self, *, shared: bool = False, on_wait: Callable[[], None] = lambda: None) -> None:
        """Take the lock, waiting for as long as another process holds it.

        Args:
            shared: let other processes take it shared as well.
            on_wait: called once before waiting.
        """
        if not self.try_acquire(shared=shared):
            on_wait()
            fcntl.flock(self.descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock unless another process holds it. Return whether it was taken."""
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock and keep the file open, to take it again."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def is_in_place(self) -> bool:
        """Return whether `path` still names the open file: it may have been renamed, removed or replaced."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self.descriptor), os.lstat(self.path))
        return False

    def close(self) -> None:
        """Close the file, which releases the lock."""
        os.close(self.descriptor)


def lock_within(
    path: Path, wait_s: float, busy: str, *, create: bool = True, on_retry: Callable[[], None] = lambda: None
) -> FileLock:
    """Lock the file at `path` exclusively, also where its holder may rename or remove it.

    The folder of the file is created if it is missing.

    Args:
        path: the file to lock.
        wait_s: how long to retry while another process holds the lock, in seconds.
        busy: the text of the BusyError.
        create: whether a missing file is created.
        on_retry: called before each further attempt.

    Returns:
        The lock, held. The caller closes it.

    Raises:
        BusyError: another process still holds the lock after `wait_s`.
        OSError: the file can't be opened.
    """
    deadline = time.monotonic() + wait_s
    while True:
        make_folder(path.parent)
        lock = FileLock(path, create=create)
        if lock.try_acquire():
            # If the file was renamed or removed meanwhile, the lock that is held is not the one at `path`.
            if lock.is_in_place():
                return lock
            lock.close()
            continue
        lock.close()
        if time.monotonic() >= deadline:
            raise BusyError(busy)
        on_retry()
        time.sleep(_POLL_S)
