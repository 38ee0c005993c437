"""Assembled models on disk, named by their seed's digest, safe with any number of processes at once.

    <root>/<digest>/model.onnx, model.weights   a whole model; published by one rename
    <root>/<digest>/synced                      empty; says that the files beside it are on the disk
    <root>/<digest>.part/                       a model being made; only the holder of the maker's lock touches it
    <root>/<digest>.lock                        shared while a process uses or makes the model, exclusive to remove it
    <root>/<digest>.maker.lock                  exclusive to make the model, until it is on the disk

An altered model is replaced file by file, each by one rename, while other processes use it: the files that they have
open stay theirs, and whoever opens one finds a file of the same model at every moment.
A process that is killed leaves at most a `.part` folder behind, or a model that isn't `synced`, which the next one
removes or makes again: after a power cut it could be anything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from seed_runtime import skeletons
from seed_runtime.assembly.assemble import is_assembled, sync_assembled
from seed_runtime.errors import CacheSpaceError, DiskSpaceError
from seed_runtime.format.header import Header
from seed_runtime.format.preamble import DIGEST
from seed_runtime.system import paths
from seed_runtime.system.folders import temporary_folder
from seed_runtime.system.locks import FileLock
from seed_runtime.system.sync import sync_folder
from seed_runtime.units import CACHE_MIN, CACHE_USUAL, parse_size

SYNCED_FILE: Final = "synced"
_FLUSH_AFTER_S: Final = 2.0
"""Time that a model is used before it is flushed beside that [s]: until then the disk reads the backend's library.

Flushed at once, the import of ONNX Runtime took 90 ms in place of 50.
"""
DEFAULT_LIMIT: Final = 4 * 1000**3
"""Largest size of all assembled models together, in bytes; SEED_CACHE_LIMIT sets another."""


def default_root() -> Path:
    """Return $XDG_CACHE_HOME/seed/models, where XDG_CACHE_HOME is ~/.cache unless it is an absolute path."""
    return paths.cache_home() / "models"


def default_cache() -> ModelCache:
    """Return the user's cache; SEED_CACHE_LIMIT sets its size, such as 500MB."""
    text = os.environ.get("SEED_CACHE_LIMIT")
    limit = parse_size(text, least=CACHE_MIN, usual=CACHE_USUAL) if text else DEFAULT_LIMIT
    return ModelCache(default_root(), limit)


class ModelCache:
    """A folder of assembled models. The least recently used are removed when it exceeds `limit` bytes."""

    def __init__(self, root: Path, limit: int, *, lasting: bool = True) -> None:
        """Use the folder `root`, which is created when it is needed, for up to `limit` bytes.

        Args:
            root: the folder.
            limit: size of all models together [B].
            lasting: False for a folder that this process will remove: nothing of it is flushed to the disk.
        """
        self.root, self.limit, self._lasting = root, limit, lasting

    @contextlib.contextmanager
    def hold(
        self,
        digest: bytes,
        header: Header,
        make: Callable[[Path], None],
        on_wait: Callable[[], None],
        is_intact: Callable[[Path], bool] | None = None,
        *,
        sync_beside: bool = False,
    ) -> Iterator[Path]:
        """Give the folder of a model, which nobody removes within the block; make it first if it isn't there.

        Args:
            digest: the seed's digest.
            header: the seed's header.
            make: fills an empty folder with the model.
            on_wait: called before waiting for another process that makes the same model.
            is_intact: asked about a folder that was there before; one that isn't intact is made again.
            sync_beside: give a model that was made before it is on the disk. A thread flushes it meanwhile, and the
                block's end waits for that.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = digest.hex()
        folder = self.root / name

        def is_good() -> bool:
            return is_synced(folder, header) and (is_intact is None or is_intact(folder))

        with FileLock(self.root / f"{name}.lock") as users, contextlib.ExitStack() as stack:
            users.acquire(shared=True, on_wait=on_wait)
            if not is_good():
                with contextlib.ExitStack() as making:
                    maker = making.enter_context(FileLock(self.root / f"{name}.maker.lock"))
                    maker.acquire(on_wait=on_wait)
                    # Another process may have made it meanwhile.
                    if not is_good():
                        finish = self._make(folder, users, header, make)
                        if sync_beside:
                            stack.enter_context(_Beside(finish, making.pop_all()))
                        else:
                            finish()
            with contextlib.suppress(OSError):
                os.utime(folder)  # marks it as used just now; a read-only cache still serves
            yield folder

    def remove(self, digest: str) -> None:
        """Remove a model that no process uses; one in use is removed when the cache needs its space."""
        if (self.root / digest).is_dir():
            self._clear(digest)

    def evict(self, room: int = 0) -> None:
        """Remove what killed processes left, then the least recently used models until `room` more bytes fit.

        They have to fit into `limit` and onto the disk; see `free_disk` for the latter.
        """
        for part in self.root.glob("*.part"):
            self._clear_part(part)
        models = self._models()
        # The models that other processes are making count as well, but only they may remove those.
        total = room + sum(_size(part) for part in self.root.glob("*.part")) + sum(models.values())
        for path, size in models.items():
            if total <= self.limit:
                break
            if self._clear(path.name):
                total -= size
        self.free_disk(room)

    def free_disk(self, room: int, spare: Collection[str] = ()) -> None:
        """Remove the least recently used models until `room` bytes are free on the disk.

        None is removed if removing all of them wouldn't free enough.

        Args:
            room: bytes to be free.
            spare: digests of models to keep.
        """
        if not self.root.is_dir():
            return
        models = {path: size for path, size in self._models().items() if path.name not in spare}
        if self._free() + sum(models.values()) < room:
            return
        for path in models:
            if self._free() >= room:
                return
            self._clear(path.name)

    def _models(self) -> dict[Path, int]:
        """Return the size of each model in bytes, the least recently used first."""
        # Anything else in the folder isn't ours to remove.
        found = sorted((_used(path), path) for path in self.root.iterdir() if DIGEST.fullmatch(path.name))
        return {path: _size(path) for _, path in found}

    def _free(self) -> int:
        return shutil.disk_usage(self.root).free

    def _make(self, folder: Path, users: FileLock, header: Header, make: Callable[[Path], None]) -> Callable[[], None]:
        """Make the model, whatever stands in its place. The maker's lock is held, and `users` shared.

        Returns:
            What flushes it to the disk and says so, while the lock is still held.
        """
        part = folder.with_name(f"{folder.name}.part")
        if folder.is_dir():
            # If no other process uses it, it is removed first, so that the disk needs no space for two.
            users.release()
            self._clear(folder.name)
            users.acquire(shared=True)
        with temporary_folder(part, 0o700):
            self.evict(model_size(header))
            try:
                make(part)
                if folder.is_dir():
                    # Others use it: not even for a moment may it hold files that aren't on the disk.
                    self._sync(part, header)
                    for name in skeletons.of(header).sizes(header):
                        os.replace(part / name, folder / name)
                else:
                    part.rename(folder)
            except DiskSpaceError as error:
                raise CacheSpaceError(str(self.root), error.needed, error.free) from None
        return lambda: self._finish(folder, header)

    def _finish(self, folder: Path, header: Header) -> None:
        """Flush a model that was made, then note that in it."""
        try:
            self._sync(folder, header)
        except DiskSpaceError as error:
            raise CacheSpaceError(str(self.root), error.needed, error.free) from None
        (folder / SYNCED_FILE).touch()
        if self._lasting:
            sync_folder(folder)
            sync_folder(self.root)

    def _sync(self, folder: Path, header: Header) -> None:
        if self._lasting:
            sync_assembled(folder, header)

    def _clear(self, name: str) -> bool:
        """Remove a model unless a process uses or makes it. Return whether it was removed."""
        path = self.root / name
        with FileLock(self.root / f"{name}.lock") as users:
            if not users.try_acquire():
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
        with FileLock(part.with_name(f"{part.stem}.maker.lock")) as maker:
            if maker.try_acquire():
                shutil.rmtree(part, ignore_errors=True)


class _Beside:
    """Work in a thread beside a block, whose end waits for it. A context manager that raises its errors."""

    def __init__(self, work: Callable[[], None], held: contextlib.ExitStack) -> None:
        """Take the work, and what is released when it is done."""
        self._work, self._held = work, held
        self._error: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cache", daemon=True)

    def _run(self) -> None:
        self._ended.wait(_FLUSH_AFTER_S)
        with self._held:
            try:
                self._work()
            except Exception as error:
                self._error = error

    def __enter__(self) -> _Beside:
        try:
            self._thread.start()
        except RuntimeError:  # there can be no other thread
            self._ended.set()
            self._run()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error


def is_synced(folder: Path, header: Header) -> bool:
    """Return whether a model of the cache is there and on the disk, by the names and sizes of its files."""
    return (folder / SYNCED_FILE).is_file() and is_assembled(folder, header)


def model_size(header: Header) -> int:
    """Return the size of the assembled model [B]."""
    return sum(skeletons.of(header).sizes(header).values())


def _size(folder: Path) -> int:
    # Other processes remove models as well, so each of these may be gone by now.
    with contextlib.suppress(FileNotFoundError):
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    return 0


def _used(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0
