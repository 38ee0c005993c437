"""All models on this device, and the partial transfers of seeds that are on their way.

    $SEED_HOME, else $XDG_DATA_HOME/seed
    incoming/<digest>.part   the part of a seed that has arrived; locked by the process that receives it
    models/<name>/           see installed_model.py

Within this folder no link is followed but a model's `current`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from seed_runtime.agent.names import NAME
from seed_runtime.agent.store.installed_model import InstalledModel, list_names
from seed_runtime.errors import UsageError
from seed_runtime.format.preamble import DIGEST
from seed_runtime.system import paths
from seed_runtime.system.locks import BusyError, lock_within

PARTS_KEPT: Final = 4
"""Number of partial transfers that are kept beside the one that is under way."""
_REMOVED: Final = re.compile(rf"\.{NAME.pattern}\.[0-9a-f]{{8}}\.old")
"""Names of models that are being removed."""


class Store:
    """The folder that holds all models of a device; the first push creates it."""

    def __init__(self, home: Path | None = None) -> None:
        """Use the store at `home`, or this user's."""
        # The folder itself may be a link, such as to a larger disk. Within it none is followed.
        self.home = Path(os.path.realpath(home or paths.store_home()))
        self.incoming = self.home / "incoming"
        self.models = self.home / "models"

    def model(self, name: str) -> InstalledModel:
        """Return the model of this name, be it there or not.

        Raises:
            UsageError: the name can't name a model, or a folder of the store is a link.
        """
        if not NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} can't name a model; use letters, digits, dots, dashes, at most 64 of them")
        model = InstalledModel(self, name)
        for folder in (self.incoming, self.models, model.folder, model.versions):
            if folder.is_symlink():
                raise UsageError(f"{folder} is a link and must be a folder; remove the link")
        return model

    def names(self) -> list[str]:
        """Return the names of models of which there is a version or a part of one, sorted."""
        return sorted(name for name in self._names() if not self.model(name).is_empty())

    def partial_path(self, digest: str) -> Path:
        """Return where the part of a seed that has arrived is."""
        return self.incoming / f"{digest}.part"

    def holders(self, digest: str) -> list[str]:
        """Return the names of the models that store this version."""
        return [name for name in self._names() if (self.models / name / "versions" / digest).is_dir()]

    def clean_up(self, keep: str) -> None:
        """Remove what killed processes left, and partial transfers that are of no use any more.

        Those are the ones that were installed meanwhile, and the oldest beyond PARTS_KEPT. Locked ones stay.

        Args:
            keep: the digest of a partial transfer that stays.
        """
        for name in list_names(self.models):
            if _REMOVED.fullmatch(name):
                shutil.rmtree(self.models / name, ignore_errors=True)
            elif NAME.fullmatch(name) and self.model(name).is_empty():
                with contextlib.suppress(BusyError), self.model(name).locked(0):
                    pass  # the end of the block removes an empty model
        parts = [self.incoming / name for name in list_names(self.incoming) if name.endswith(".part")]
        parts = [path for path in parts if DIGEST.fullmatch(path.stem) and path.stem != keep]
        parts.sort(key=lambda path: (_modified(path), path.name), reverse=True)
        kept = 0
        for path in parts:
            if kept < PARTS_KEPT and not self.holders(path.stem):
                kept += 1
                continue
            with (
                contextlib.suppress(BusyError, FileNotFoundError, UsageError),
                lock_within(path, 0, "", create=False),
            ):
                path.unlink()

    def forget_versions(self, digests: Iterable[str]) -> None:
        """Take versions that no model stores any more off the accepted list, and their assembled copies off the disk.

        Raises:
            TrustError: the list can't be written.
        """
        from seed_runtime import trust
        from seed_runtime.assembly.cache import ModelCache, default_root

        gone = [digest for digest in digests if not self.holders(digest)]
        if not gone:
            return
        trust.forget(gone)
        cache = ModelCache(default_root(), 0)
        # A copy that can't be removed now is removed when the cache needs its space.
        with contextlib.suppress(OSError):
            for digest in gone:
                cache.remove(digest)

    def _names(self) -> list[str]:
        return [name for name in list_names(self.models) if NAME.fullmatch(name)]


def _modified(path: Path) -> float:
    """Return when a file was last written to, in seconds since 1970; 0 if that can't be found out."""
    with contextlib.suppress(OSError):
        return path.stat(follow_symlinks=False).st_mtime
    return 0.0
