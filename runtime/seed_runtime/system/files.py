"""Atomic files: at every moment a path names the old file or the new one, whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from seed_runtime.errors import UsageError
from seed_runtime.system.sync import sync_folder


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, temporary: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` when the block ends without an error.

    A link stays, and the file that it names is replaced by one with the same permissions. Anything that isn't a
    regular file, such as a device or a named pipe, is written to and never replaced.

    Args:
        path: where the file goes. Its folder must exist.
        temporary: where it is until it is whole, in the same folder; what a killed process left there is removed. For
            callers with a lock on the path. None for a name that nothing else has.

    Yields:
        The file, open for writing bytes.

    Raises:
        UsageError: no file can be put there; raised before the block begins.
    """
    check_writable(path)
    if _is_special(path):
        with open(path, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    # A short name that doesn't contain the target's: a target may have the longest name that a folder takes.
    # os.open lets the system apply the umask, which Python could only read by changing it for all threads.
    if temporary is None:
        temporary = target.with_name(f".seed-{os.urandom(4).hex()}.part")
    else:
        temporary.unlink(missing_ok=True)
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
                with contextlib.suppress(PermissionError):  # the file system stores no permissions
                    os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    # A folder that can't be listed, and so can't be opened here, may be writable all the same.
    with contextlib.suppress(PermissionError):
        sync_folder(target.parent)


class NotRegularError(OSError):
    """There is no regular file at a path, but a link, a folder, a pipe or a device."""


def open_regular(path: Path, *, writable: bool = False, dir_fd: int | None = None) -> BinaryIO:
    """Open a regular file, unbuffered; no link is followed.

    Args:
        path: the file.
        writable: open it for reading and writing.
        dir_fd: its folder, in which its name is looked up; None to take the whole path.

    Raises:
        NotRegularError: it is something else.
        OSError: it can't be opened.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Not blocking: opening a named pipe would wait for ever.
        descriptor = os.open(path if dir_fd is None else path.name, flags | os.O_NONBLOCK, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegularError(error.errno, "it is a link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(errno.EINVAL, "it is not a file", str(path))
    return cast(BinaryIO, os.fdopen(descriptor, "r+b" if writable else "rb", buffering=0))


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is on the disk when this returns.

    This isn't atomic: use it within a folder that isn't published yet.
    """
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be put at `path`. Call it before minutes of work, not after.

    Raises:
        UsageError: there is no such folder, it isn't writable, or `path` is a folder itself.
    """
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


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two paths name one file, so that writing to one would lose the other.

    Character devices such as /dev/null store nothing and are never the same file in this sense.
    """
    try:
        first, second = os.stat(one), os.stat(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
    return os.path.samestat(first, second) and not stat.S_ISCHR(first.st_mode)


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` exists and is neither a file nor a folder.

    The path is examined as it was given: /dev/stdout may lead to a pipe, which has no other name.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # For example a name that is too long.
        raise UsageError(f"{path}: {error.strerror}; give another path") from None
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
