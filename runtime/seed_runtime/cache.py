"""Assembled models on disk, keyed by their seed's digest, safe with any number of processes at once.

    <root>/<digest>/model.onnx, model.weights   a whole model; appears by one rename
    <root>/<digest>.part/                       one being assembled; only the holder of the lock touches it
    <root>/<digest>.lock                        shared while a session uses the model, exclusive to make or remove it

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

from seed_runtime import folders, skeletons
from seed_runtime.assemble import is_assembled
from seed_runtime.files import sync_folder
from seed_runtime.format.header import Header

DEFAULT_LIMIT: Final = 4 * 1000**3
"""Bytes of all assembled models together; SEED_CACHE_LIMIT sets another."""
_MODEL: Final = re.compile("[0-9a-f]{64}")
"""Names of models: anything else in the folder is not ours to remove."""


def default_root() -> Path:
    """$XDG_CACHE_HOME/seed/models, where XDG_CACHE_HOME is ~/.cache unless it is an absolute path."""
    return folders.cache_home() / "models"


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
        folder, part = self.root / name, self.root / f"{name}.part"
        with _lock(self.root / f"{name}.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if is_intact is not None and is_assembled(folder, header) and not is_intact(folder):
                # Sessions that run it keep their mapping.
                (folder / skeletons.of(header).weights_file).unlink()
            while not is_assembled(folder, header):
                # flock gives up the shared lock before it waits for the exclusive one: two processes can't block
                # each other, but both must look again.
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_assembled(folder, header):
                    self._make(folder, part, header, make)
                fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(OSError):
                os.utime(folder)  # "used just now"; a read-only cache still serves
            yield folder

    def remove(self, digest: str) -> None:
        """Remove a model that no process holds; one that is held goes when the cache needs its room."""
        if (self.root / digest).is_dir():
            self._clear(self.root / digest, digest)

    def evict(self, room: int = 0) -> None:
        """Remove what killed processes left, then the least recently used models until `room` more bytes fit."""
        for part in self.root.glob("*.part"):
            self._clear(part, part.stem)
        # What other processes are making counts, but is theirs.
        total = room + sum(_size(part) for part in self.root.glob("*.part"))
        models = sorted((_used(path), path) for path in self.root.iterdir() if _MODEL.fullmatch(path.name))
        sizes = {path: _size(path) for _, path in models}
        total += sum(sizes.values())
        for _, path in models:
            if total <= self.limit:
                return
            if self._clear(path, path.name):
                total -= sizes[path]

    def _make(self, folder: Path, part: Path, header: Header, make: Callable[[Path], None]) -> None:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        self.evict(header.weights_size + header.skeleton.raw_size)
        part.mkdir(mode=0o700)
        try:
            make(part)
            sync_folder(part)
            part.rename(folder)
            sync_folder(self.root)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _clear(self, path: Path, name: str) -> bool:
        """Remove a model that no process holds."""
        with _lock(self.root / f"{name}.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            part = path.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            if path != part:
                # Renamed first, so that a kill halfway leaves a `.part` and never half a model.
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    path.rename(part)
                shutil.rmtree(part, ignore_errors=True)
            return True


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    # Lock files stay: removing one while another process waits for it would split the lock in two.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    # Other processes remove models as well, so each of these may be gone by now.
    with contextlib.suppress(FileNotFoundError):
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    return 0


def _used(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0
