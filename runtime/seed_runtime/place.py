"""Puts a finished folder in place: the old one or the new one, whole, at every moment."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from seed_runtime.assemble import MODEL_FILE, WEIGHTS_FILE
from seed_runtime.cache import fsync_folder
from seed_runtime.errors import InputError

_OURS: Final = {MODEL_FILE, WEIGHTS_FILE}
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


@contextlib.contextmanager
def folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place if the block ends without an error.

    InputError where `target` is something else than an empty folder or an assembled model.
    What a killed process left of an earlier attempt is removed.
    """
    # A link stays, and the folder that it names is replaced.
    target = target.resolve()
    if target == Path.cwd():
        raise InputError(f"{target} is the working folder, which can't be replaced; give a new folder")
    if target.exists() and not (target.is_dir() and {entry.name for entry in target.iterdir()} <= _OURS):
        raise InputError(f"{target} holds something else than an assembled model; give a new folder")
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    for left in target.parent.glob(f"{glob.escape(prefix)}*.part"):
        with contextlib.suppress(OSError), _lock(left):
            shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=target.parent))
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, made)
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        stack.enter_context(_lock(part))
        yield part
        part.chmod(0o755)
        fsync_folder(part)
        if target.exists():
            _exchange(part, target)
        else:
            part.rename(target)
        fsync_folder(target.parent)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Tell other processes that this folder is in use; OSError where one of them says so."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _exchange(part: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        done = libc.renameat2(_AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE)
        if done == 0:
            return
    # A file system without it (vfat, some network ones): two renames, and between them the old model has another name.
    old = part.with_suffix(".old")
    target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
