"""Puts a finished folder in place: the old one or the new one, whole, at every moment.

    .<name>.<8 hex digits>.part   one being made; its maker holds a lock on it
    .<name>.<8 hex digits>.old    the model that is replaced, between two renames, where the system can't exchange

A process that is killed leaves at most these, and the next one that has the same target puts them right.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from seed_runtime import skeletons
from seed_runtime.errors import FormatError, InputError, UnsupportedError
from seed_runtime.limits import PART_RAW_MAX
from seed_runtime.system.atomic import sync_folder

_OURS: Final = frozenset(name for kind in skeletons.KINDS for name in (kind.model_file, kind.weights_file))
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_TRIES: Final = 100


@contextlib.contextmanager
def folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place if the block ends without an error.

    InputError where `target` is something else than an empty folder or an assembled model, before and after the block.
    What a killed process left of an earlier attempt is removed, or put back where it is the model itself.
    """
    # A link stays, and the folder that it names is replaced.
    target = target.resolve()
    if target == Path.cwd():
        raise InputError(f"{target} is the working folder, which can't be replaced; give a new folder")
    _recover(target)
    _check(target)
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, made)
        part = stack.enter_context(_fresh(target))
        yield part
        sync_folder(part)
        # Again: whoever put a file there meanwhile would lose it.
        _check(target)
        if target.exists():
            _exchange(part, target)
        else:
            part.rename(target)
        sync_folder(target.parent)


def _check(target: Path) -> None:
    if target.exists() and not _is_replaceable(target):
        raise InputError(
            f"{target} holds something else than an assembled model, and it would be lost; give a new folder, "
            f"or move what is there"
        )


def _is_replaceable(target: Path) -> bool:
    """Whether it is an empty folder, or holds a model as `assemble` leaves it and nothing else."""
    if not target.is_dir():
        return False
    names = set(os.listdir(target))
    if not names:
        return True
    kind = next((kind for kind in skeletons.KINDS if names == {kind.model_file, kind.weights_file}), None)
    if kind is None or any((target / name).is_symlink() or not (target / name).is_file() for name in names):
        return False
    # A user's own model.onnx may lie beside a file of that name as well.
    with open(target / kind.model_file, "rb") as file:
        if not 0 < os.fstat(file.fileno()).st_size <= PART_RAW_MAX:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                kind.scan(data)
            except (FormatError, UnsupportedError):
                return False
    return True


def _recover(target: Path) -> None:
    """Put right what killed processes left: only folders of exactly our names, that hold nothing of anyone else's."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.(part|old)")
    try:
        left = [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return
    for path in left:
        # OSError: another process uses it, or was faster.
        with contextlib.suppress(OSError), _lock(path):
            if not _OURS.issuperset(os.listdir(path)):
                continue
            if path.suffix == ".old" and not target.exists() and _is_replaceable(path):
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, locked; what has its name in the end is removed."""
    with contextlib.ExitStack() as stack:
        for _ in range(_TRIES):
            part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
            part.mkdir()
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            # Another process may take it for one that was left, until the lock is held: then the next one.
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                stack.enter_context(_lock(part))
                break
        else:
            raise InputError(f"{target}: other processes keep removing new folders beside it; give another folder")
        yield part


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Tell other processes that this folder is in use.

    BlockingIOError where one of them says so, FileNotFoundError where the folder has gone or is another one by now.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(folder, follow_symlinks=False)):
            raise FileNotFoundError(folder)
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
    # A file system without it (vfat, some network ones): two renames, and between them the old model has another name,
    # under which `_recover` finds it after a kill. The lock keeps that from other processes until then.
    old = part.with_suffix(".old")
    try:
        with _lock(target):
            target.rename(old)
            try:
                part.rename(target)
            except BaseException:
                if not target.exists():
                    old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except (BlockingIOError, FileNotFoundError):
        raise InputError(f"{target}: another process replaces it just now; try again") from None
