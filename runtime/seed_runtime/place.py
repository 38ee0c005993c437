"""Puts a finished folder in place: the old one or the new one, whole, at every moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from seed_runtime.cache import fsync_folder
from seed_runtime.assemble import MODEL_FILE, WEIGHTS_FILE
from seed_runtime.errors import InputError

_OURS: Final = {MODEL_FILE, WEIGHTS_FILE}
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


@contextlib.contextmanager
def folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place if the block ends without an error.

    InputError where `target` is something else than an empty folder or an assembled model.
    """
    if target.exists():
        if not target.is_dir() or not {entry.name for entry in target.iterdir()} <= _OURS:
            raise InputError(f"{target} holds something else than an assembled model; give a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        yield part
        part.chmod(0o755)
        fsync_folder(part)
        if target.exists():
            _exchange(part, target)
        else:
            part.rename(target)
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
