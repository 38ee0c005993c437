"""Store wheels on this machine, so that devices get them without an index.

    <user cache>/seed/wheels/<16 hex>-<16 hex>/*.whl   appears by one rename and never changes
    <user cache>/seed/wheels/<16 hex>.lock             held while such a folder is made: two processes make it once

The first half of a folder's name stands for what was asked for (sources; or machine, Python, glibc and requirements),
the second for the digests of the wheels, so that damage shows. A folder's time is that of the last question. The
folder before the newest one stays, as its wheels may still be on their way to a device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from seed_devices.errors import WheelsError
from seed_runtime.errors import SeedError
from seed_runtime.system.folders import temporary_folder
from seed_runtime.system.locks import FileLock


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One wheel. `size` and `unpacked` (what it takes when installed) are in bytes."""

    path: Path
    sha256: str
    size: int
    unpacked: int


def cache_root() -> Path:
    """Return the folder in which wheels are stored."""
    return Path(platformdirs.user_cache_path("seed", appauthor=False)) / "wheels"


def describe(path: Path) -> Wheel:
    """Return the record of the wheel at `path`."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    return Wheel(path, sha256(path), path.stat().st_size, unpacked)


def cached(
    key: str, make: Callable[[Path], object], title: str = "", valid_s: float = math.inf
) -> tuple[tuple[Wheel, ...], list[str]]:
    """Return the stored wheels for `key`, made by `make(empty folder)` where none are or they are older than `valid_s`.

    Where `make` fails, older wheels are returned, and are valid again for as long.

    Args:
        key: what is wanted, see `key_of`.
        make: writes the wheels into a folder.
        title: of the wheels, for notes.
        valid_s: seconds; without an end if not given.

    Returns:
        The wheels, and notes for the user: when the wheels were made, if `make` failed.

    Raises:
        SeedError: of `make`, where no wheels are stored.
    """
    with _locked(key) as root:
        folders = sorted(root.glob(f"{key}-*"), key=_asked, reverse=True)
        wheels = next(filter(None, map(_stored, folders)), ())
        folder = wheels[0].path.parent if wheels else root
        asked = _asked(folder)
        notes: list[str] = []
        if wheels and 0 <= time.time() - asked < valid_s:
            return wheels, notes
        try:
            with temporary_folder(root / f"{key}.part") as part:
                make(part)
                folder = root / _folder_name(key, part)
                if not _stored(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    part.rename(folder)
        except SeedError as error:
            if not wheels:
                raise
            day = time.strftime("%Y-%m-%d", time.gmtime(asked))
            reason = error.reason if isinstance(error, WheelsError) else str(error)
            notes.append(f"{title}: those of {day} were used, the index could not be asked ({reason})")
        os.utime(folder)
        for old in [old for old in folders if old != folder][1:]:
            shutil.rmtree(old, ignore_errors=True)
        return _stored(folder), notes


def _asked(folder: Path) -> float:
    return folder.stat().st_mtime


def _folder_name(key: str, folder: Path) -> str:
    return f"{key}-{key_of(*(sha256(path) for path in sorted(folder.glob('*.whl'))))}"


def _stored(folder: Path) -> tuple[Wheel, ...]:
    """Return the wheels of a stored folder; none where it is missing or a wheel is damaged."""
    key = folder.name.partition("-")[0]
    return tuple(map(describe, sorted(folder.glob("*.whl")))) if folder.name == _folder_name(key, folder) else ()


@contextlib.contextmanager
def _locked(key: str) -> Iterator[Path]:
    """Hold the lock for `key` within the block, and return the folder of the cache."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{key}.lock") as lock:
        lock.acquire()
        yield root


def key_of(*parts: str) -> str:
    """Return the key for wheels that are named by `parts`."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
