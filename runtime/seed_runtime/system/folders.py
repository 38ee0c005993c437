"""Atomic folders: at every moment a path names the old folder or the new one, whole.

    .<name>.<8 hex digits>.part   being filled; its maker holds a lock on it
    .<name>.<8 hex digits>.old    the replaced folder between two renames, on systems that can't exchange two names

A process that is killed leaves at most these behind. The next one with the same target removes them, or renames an
`.old` folder back if it is the only copy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seed_runtime.errors import InputError
from seed_runtime.system.locks import FileLock
from seed_runtime.system.sync import sync_folder

_AT_FDCWD: Final = -100
"""The directory descriptor that stands for the working folder. Source: <fcntl.h>"""
_RENAME_EXCHANGE: Final = 2
"""The flag of renameat2 that exchanges two names. Source: <linux/fs.h>"""
_ATTEMPTS: Final = 100
"""Number of new folders that may be taken away by other processes before giving up."""


@dataclass(frozen=True)
class FolderKind:
    """The kind of folders that `atomic_folder` may replace."""

    title: str
    """Name of such a folder in messages: "an assembled model"."""
    files: frozenset[str]
    """Names of all files that such a folder may hold. A leftover that holds another name is somebody else's."""
    is_replaceable: Callable[[Path], bool]
    """Function that returns whether an existing folder is of this kind, or is empty."""


@contextlib.contextmanager
def atomic_folder(target: Path, kind: FolderKind) -> Iterator[Path]:
    """Create an empty folder that takes the place of `target` when the block ends without an error.

    A link stays, and the folder that it names is replaced. Missing parents are created, and removed again on an error.
    Leftovers of killed processes are removed, or renamed back where one is the only copy of the target.

    Args:
        target: the folder to create or replace.
        kind: what may be replaced there.

    Yields:
        The new folder, beside `target`, for the block to fill.

    Raises:
        InputError: `target` is the working folder or may not be replaced; checked before and after the block.
    """
    target = target.resolve()
    if target == Path.cwd():
        raise InputError(f"{target} is the working folder, which can't be replaced; give a new folder")
    recover(target, kind)
    _check_replaceable(target, kind)
    created = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, created)
        part = stack.enter_context(_locked_part(target))
        yield part
        sync_folder(part)
        # Checked again: a file that somebody put there meanwhile would be lost.
        _check_replaceable(target, kind)
        if target.exists():
            _exchange(part, target)
        else:
            part.rename(target)
        sync_folder(target.parent)


@contextlib.contextmanager
def temporary_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Create the folder `path` empty, and remove it after the block unless the block renamed it.

    The caller holds a lock that keeps other processes from using the same path.

    Args:
        path: the folder; one of this name that a killed process left is removed first.
        mode: its permissions, before the umask is applied.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=mode)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def recover(target: Path, kind: FolderKind) -> None:
    """Remove or rename back what killed processes left beside `target`.

    Only folders with exactly the names in this module's docstring are touched, and only if they hold no other files
    than `kind` knows and no process has locked them.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.(part|old)")
    try:
        leftovers = [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return
    for path in leftovers:
        # OSError: another process uses it, or has removed it already.
        with contextlib.suppress(OSError), _locked(path):
            if not kind.files.issuperset(os.listdir(path)):
                continue
            if path.suffix == ".old" and not target.exists() and kind.is_replaceable(path):
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _check_replaceable(target: Path, kind: FolderKind) -> None:
    if target.exists() and not kind.is_replaceable(target):
        raise InputError(
            f"{target} holds something else than {kind.title}, and it would be lost; give a new folder, "
            f"or move what is there"
        )


@contextlib.contextmanager
def _locked_part(target: Path) -> Iterator[Path]:
    """Create a locked folder beside `target`; whatever has its name after the block is removed."""
    with contextlib.ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
            part.mkdir()
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            # Until the lock is held, another process may take the folder for a leftover: then try the next one.
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                stack.enter_context(_locked(part))
                break
        else:
            raise InputError(f"{target}: other processes keep removing new folders beside it; give another folder")
        yield part


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which tells other processes that it is in use.

    Raises:
        BlockingIOError: another process holds it.
        FileNotFoundError: the folder is gone, or its name stands for another one by now.
    """
    with FileLock(folder, folder=True) as lock:
        if not lock.try_acquire():
            raise BlockingIOError(folder)
        if not lock.is_in_place():
            raise FileNotFoundError(folder)
        yield


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _exchange(part: Path, target: Path) -> None:
    """Let two folders change names: by one system call, or by two renames where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        status = libc.renameat2(_AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE)
        if status == 0:
            return
    # Some file systems can't exchange (vfat, some network ones). Between the two renames the old folder has another
    # name, by which `recover` finds it after a kill. The lock keeps other processes from doing so before that.
    old = part.with_suffix(".old")
    try:
        with _locked(target):
            target.rename(old)
            try:
                part.rename(target)
            except BaseException:
                if not target.exists():
                    old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError):
        raise InputError(f"{target}: another process is replacing it; try again") from None
