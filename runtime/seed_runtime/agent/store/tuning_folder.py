"""Files of fine-tunes on this device: what was sent for one, and what the same request goes on from.

    $SEED_HOME/tuning/<name>/
    <digest>.npz                the samples that have arrived; of one run at a time
    tuned.seed                  what was learned so far
    tuned.seed.checkpoint       what the same request goes on from
    lock                        held by the process that serves the client

A run that ends removes them. After one that was cut off they stay until the next one, `remove`, or a push that needs
the space.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from seed_runtime.agent.store.store import Store
from seed_runtime.errors import UsageError
from seed_runtime.system.locks import BusyError, FileLock, lock_within
from seed_runtime.system.sync import make_folder


@dataclass(frozen=True)
class TuningFolder:
    """Files of one model's fine-tune.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def of(cls, store: Store, name: str) -> TuningFolder:
        """Return the folder of a model, be it there or not."""
        for folder in (store.home / "tuning", store.home / "tuning" / name):
            if folder.is_symlink():
                raise UsageError(f"{folder} is a link and must be a folder; remove the link")
        return cls(store.home / "tuning" / name)

    def data(self, digest: str) -> Path:
        """Return where samples are."""
        return self.path / f"{digest}.npz"

    @property
    def seed(self) -> Path:
        """Where what was learned is written."""
        return self.path / "tuned.seed"

    @property
    def checkpoint(self) -> Path:
        """What a run goes on from."""
        return self.path / "tuned.seed.checkpoint"

    def lock(self, name: str) -> FileLock:
        """Lock the folder, and make it if it isn't there.

        Raises:
            BusyError: another process tunes this model.
        """
        make_folder(self.path)
        return lock_within(
            self.path / "lock", 0, f"{name} is being tuned already; wait, or stop that with Ctrl-C there"
        )

    def clear(self, keep: str | None = None) -> None:
        """Remove all files but the lock; with `keep`, all but samples of this digest and what goes on with them."""
        kept = {"lock"} | ({f"{keep}.npz", self.seed.name, self.checkpoint.name} if keep is not None else set())
        for entry in self._entries():
            if entry.name not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(entry.stat(follow_symlinks=False).st_size for entry in self._entries())

    def clear_if_unused(self) -> int:
        """Remove all files unless a process has the lock. Return their size [B]."""
        if not self.path.is_dir():
            return 0  # taking the lock would make it
        with contextlib.suppress(OSError, BusyError), lock_within(self.path / "lock", 0, "", create=False):
            before = self.size()
            self.clear()
            return before - self.size()
        return 0

    def _entries(self) -> list[os.DirEntry[str]]:
        with contextlib.suppress(OSError):
            return [entry for entry in os.scandir(self.path) if entry.is_file(follow_symlinks=False)]
        return []


def clear_unused(tuning: Path) -> None:
    """Remove the files of all fine-tunes that no process serves.

    Args:
        tuning: the folder that holds one for each model.
    """
    if not tuning.is_symlink():
        with contextlib.suppress(OSError):
            for entry in os.scandir(tuning):
                if entry.is_dir(follow_symlinks=False):
                    TuningFolder(Path(entry.path)).clear_if_unused()
