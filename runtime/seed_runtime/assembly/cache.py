"""Assembled models on disk, keyed by their seed's digest, safe with any number of processes at once.

    <root>/<digest>/model.onnx, model.weights   a whole model; appears by one rename
    <root>/<digest>.part/                       one being made; only the holder of the maker's lock touches it
    <root>/<digest>.lock                        shared while a process uses or makes the model, exclusive to remove it
    <root>/<digest>.maker.lock                  exclusive to make the model

A model that was altered is replaced file by file, each by one rename, while other processes use it: what they have open
stays theirs, and whoever opens it finds a file of the same model at every moment.
A process that is killed leaves at most a `.part` folder behind, which the next one removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from seed_runtime import skeletons
from seed_runtime.assembly.assemble import is_assembled
from seed_runtime.errors import CacheSpaceError, DiskSpaceError
from seed_runtime.format.header import Header
from seed_runtime.system import paths
from seed_runtime.system.atomic import sync_folder

DEFAULT_LIMIT: Final = 4 * 1000**3
"""Bytes of all assembled models together; SEED_CACHE_LIMIT sets another."""
_MODEL: Final = re.compile("[0-9a-f]{64}")
"""Names of models: anything else in the folder is not ours to remove."""


def default_root() -> Path:
    """$XDG_CACHE_HOME/seed/models, where XDG_CACHE_HOME is ~/.cache unless it is an absolute path."""
    return paths.cache_home() / "models"


class ModelCache:
    """A folder of assembled models, the least recently used of which go when it exceeds `limit` bytes."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit

    @contextlib.contextmanager
    def hold(
        self,
        digest: bytes,
        header: Header,
        make: Callable[[Path], None],
        on_wait: Callable[[], None],
        is_intact: Callable[[Path], bool] | None = None,
    ) -> Iterator[Path]:
        """The folder of a model, made by `make(empty folder)` if it isn't there; nobody removes it meanwhile.

        Args:
            on_wait: called before waiting for another process that makes the same model.
            is_intact: asked of a folder that was there before; one that isn't is made anew.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = digest.hex()
        folder = self.root / name

        def is_good() -> bool:
            return is_assembled(folder, header) and (is_intact is None or is_intact(folder))

        with _lock(self.root / f"{name}.lock") as using:
            _take(using, fcntl.LOCK_SH, on_wait)
            if not is_good():
                with _lock(self.root / f"{name}.maker.lock") as making:
                    _take(making, fcntl.LOCK_EX, on_wait)
                    # Another process may have made it meanwhile.
                    if not is_good():
                        self._make(folder, using, header, make)
            with contextlib.suppress(OSError):
                os.utime(folder)  # "used just now"; a read-only cache still serves
            yield folder

    def remove(self, digest: str) -> None:
        """Remove a model that no process holds; one that is held goes when the cache needs its room."""
        if (self.root / digest).is_dir():
            self._clear(digest)

    def evict(self, room: int = 0) -> None:
        """Remove what killed processes left, then the least recently used models until `room` more bytes fit.

        They have to fit into `limit` and onto the disk; models that couldn't make room enough on it stay.
        """
        for part in self.root.glob("*.part"):
            self._clear_part(part)
        models = self._models()
        # What other processes are making counts, but is theirs.
        total = room + sum(_size(part) for part in self.root.glob("*.part")) + sum(models.values())
        for path, size in models.items():
            if total <= self.limit:
                break
            if self._clear(path.name):
                total -= size
        self.free_disk(room)

    def free_disk(self, room: int, spare: str = "") -> None:
        """Remove the least recently used models but `spare` until `room` bytes are free on the disk.

        Where all of them wouldn't do, none goes.
        """
        if not self.root.is_dir():
            return
        models = {path: size for path, size in self._models().items() if path.name != spare}
        if self._free() + sum(models.values()) < room:
            return
        for path in models:
            if self._free() >= room:
                return
            self._clear(path.name)

    def _models(self) -> dict[Path, int]:
        """Bytes of each model, the least recently used first."""
        found = sorted((_used(path), path) for path in self.root.iterdir() if _MODEL.fullmatch(path.name))
        return {path: _size(path) for _, path in found}

    def _free(self) -> int:
        return shutil.disk_usage(self.root).free

    def _make(self, folder: Path, using: int, header: Header, make: Callable[[Path], None]) -> None:
        """Make the model, whatever stands in its place. The maker's lock is held, and `using` a shared one."""
        part = folder.with_name(f"{folder.name}.part")
        if folder.is_dir():
            # Nobody else's: it goes first, so that no disk needs room for two.
            fcntl.flock(using, fcntl.LOCK_UN)
            self._clear(folder.name)
            fcntl.flock(using, fcntl.LOCK_SH)
        shutil.rmtree(part, ignore_errors=True)
        self.evict(header.weights_size + header.skeleton.raw_size)
        part.mkdir(mode=0o700)
        try:
            make(part)
            sync_folder(part)
            if folder.is_dir():
                for name in skeletons.of(header).sizes(header):
                    os.replace(part / name, folder / name)
                sync_folder(folder)
            else:
                part.rename(folder)
            sync_folder(self.root)
        except DiskSpaceError as error:
            raise CacheSpaceError(str(self.root), error.needed, error.free) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _clear(self, name: str) -> bool:
        """Remove a model that no process holds, and so none makes."""
        path = self.root / name
        with _lock(self.root / f"{name}.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            part = path.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            # Renamed first, so that a kill halfway leaves a `.part` and never half a model.
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(part)
            shutil.rmtree(part, ignore_errors=True)
            return True

    def _clear_part(self, part: Path) -> None:
        """Remove what a killed process left of a model that it made or removed."""
        with _lock(part.with_name(f"{part.stem}.maker.lock")) as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    # Lock files stay: removing one while another process waits for it would split the lock in two.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int, on_wait: Callable[[], None]) -> None:
    """Take a lock, at once or after telling that it takes a while."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, kind)


def _size(folder: Path) -> int:
    # Other processes remove models as well, so each of these may be gone by now.
    with contextlib.suppress(FileNotFoundError):
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    return 0


def _used(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0
