"""Temporary folders that outlive no process for long: what a killed one left, the next command removes.

A folder is locked as long as its process lives, and the kernel releases the lock however that ends. So a folder with
the name of ours that can be locked belongs to nobody. On file systems without locks nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError
from seed_runtime.system.locks import FileLock
from seed_runtime.system.paths import cache_home

_NAME: Final = re.compile(r"seed-scratch-[0-9a-f]{8}")
_ATTEMPTS: Final = 100
"""Number of new folders that may be taken away by other processes before giving up."""


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Create a folder that only this user can enter, and remove it after the block.

    Args:
        parent: an existing folder; by default the system's for temporary files.

    Raises:
        OSError: no folder can be made there.
    """
    base = _system_folder() if parent is None else parent
    with contextlib.ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            folder = base / f"seed-scratch-{os.urandom(4).hex()}"
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            if _lock_new(folder, stack):
                break
        else:
            raise OSError(f"other processes keep removing new folders in {base}")
        yield folder


@contextlib.contextmanager
def scratch_beside_cache() -> Iterator[Path]:
    """Give a scratch folder beside the cache, which is on a disk: the system's own folder is often memory.

    Where none can be made there, it is one of the system's.
    """
    with contextlib.ExitStack() as stack:
        parent = cache_home()
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = stack.enter_context(scratch_folder(parent))
        except OSError:
            folder = stack.enter_context(scratch_folder())
        yield folder


def scratch_parents() -> list[Path]:
    """Return the folders in which commands make scratch folders: beside the cache, and the system's."""
    with contextlib.suppress(UsageError):  # no home
        return [cache_home(), _system_folder()]
    return [_system_folder()]


def sweep(parents: Iterable[Path]) -> None:
    """Remove the scratch folders that killed processes of this user left in these folders."""
    for parent in parents:
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            left = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name) and _is_own_folder(entry)]
            for path in left:
                # OSError: a process holds it, it is gone already, or this file system has no locks.
                with contextlib.suppress(OSError), FileLock(path, folder=True) as lock:
                    if lock.try_acquire() and lock.is_in_place():
                        shutil.rmtree(path, ignore_errors=True)


def _system_folder() -> Path:
    """Return the system's folder for temporary files."""
    import tempfile  # here: with what it imports it takes 3 ms, and most commands need no such folder

    return Path(tempfile.gettempdir())


def _lock_new(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a new folder until the stack ends. Return False if another process took it for a leftover."""
    try:
        lock = stack.enter_context(FileLock(folder, folder=True))
        return lock.try_acquire() and lock.is_in_place()
    except FileNotFoundError:
        return False
    except OSError:  # no locks here, so nobody takes it
        return True


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether this user made the folder: others write into /tmp as well."""
    return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
