"""Puts a finished file in place: the old one or the new one, whole, at every moment."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seed_runtime.errors import UsageError


@contextlib.contextmanager
def placed(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write into that takes its place at `path` if the block ends without an error.

    A link stays, and the file that it names is replaced by one of the same permissions. What is no regular file, such
    as a device or a named pipe, is written to, never replaced. UsageError where no file can be put there, before the
    block begins.
    """
    check(path)
    if _is_special(path):
        with open(path, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    # A short name of its own, so that the longest name that a folder takes works too. The system applies the umask,
    # which Python could only read by changing it for all threads.
    temporary = target.with_name(f".seed-{secrets.token_hex(4)}.part")
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666 if mode is None else mode & 0o600)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                with contextlib.suppress(PermissionError):  # a file system that keeps none
                    os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    # A folder that may not be listed can be written into all the same.
    with contextlib.suppress(PermissionError):
        sync_folder(target.parent)


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is on the disk when this returns. Not in one step: for a folder that nobody looks into yet."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def check(path: str | os.PathLike[str]) -> None:
    """UsageError unless a file can be put there: to be asked before minutes of work, not after."""
    target = Path(os.path.realpath(path))
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path} can't be written to; choose another file, or change its permissions")
        return
    if target.is_dir() or not Path(path).name:
        raise UsageError(f"{path} is a folder; name a file in it")
    folder = target.parent
    if not folder.is_dir():
        raise UsageError(f"{path}: there is no folder {folder}; make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path}: nothing can be written into {folder}; choose another folder, or change its permissions"
        )


def same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether writing to one would lose the other: one file by any name. What nothing is kept in is never lost."""
    try:
        first, second = os.stat(one), os.stat(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
    return os.path.samestat(first, second) and not stat.S_ISCHR(first.st_mode)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether something stands there that is neither a file nor a folder.

    Asked of the path as it was given: /dev/stdout may lead to a pipe, which has no other name.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # A name that is too long, among others.
        raise UsageError(f"{path}: {error.strerror}; give another path") from None
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
