"""All models on this device, and what has arrived of seeds that are on their way.

    $SEED_HOME, else $XDG_DATA_HOME/seed
    incoming/<digest>.part   what has arrived of a seed; locked by whoever pushes it
    models/<name>/           see model.py

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

from seed_runtime.agent.store.installed_model import DIGEST, NAME, Model, listed
from seed_runtime.errors import UsageError
from seed_runtime.system import paths
from seed_runtime.system.locks import BusyError, lock_within

PARTS_KEPT: Final = 4
"""Partial transfers that are kept beside the one that is under way."""
_REMOVED: Final = re.compile(rf"\.{NAME.pattern}\.[0-9a-f]{{8}}\.old")


class Store:
    """The folder that holds all of it; made by the first push."""

    def __init__(self, home: Path | None = None) -> None:
        # Its own place may be a link, such as to a larger disk. Within it none is followed.
        self.home = Path(os.path.realpath(home or paths.store_home()))
        self.incoming = self.home / "incoming"
        self.models = self.home / "models"

    def model(self, name: str) -> Model:
        if not NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} can't name a model; use letters, digits, dots, dashes, at most 64 of them")
        model = Model(self, name)
        for folder in (self.incoming, self.models, model.folder, model.versions):
            if folder.is_symlink():
                raise UsageError(f"{folder} is a link and must be a folder; remove the link")
        return model

    def names(self) -> list[str]:
        """Models of which there is a version, or a part of one."""
        found = [name for name in listed(self.models) if NAME.fullmatch(name)]
        return sorted(name for name in found if not self.model(name).is_empty())

    def part(self, digest: str) -> Path:
        return self.incoming / f"{digest}.part"

    def holders(self, digest: str) -> list[str]:
        """Models that keep this version."""
        names = [name for name in listed(self.models) if NAME.fullmatch(name)]
        return [name for name in names if (self.models / name / "versions" / digest).is_dir()]

    def tidy(self, keep: str) -> None:
        """Remove what killed processes left, and partial transfers but `keep` that are of no use.

        These are such as were installed meanwhile, or are too many. What is locked stays.
        """
        for name in listed(self.models):
            if _REMOVED.fullmatch(name):
                shutil.rmtree(self.models / name, ignore_errors=True)
            elif NAME.fullmatch(name) and self.model(name).is_empty():
                with contextlib.suppress(BusyError), self.model(name).locked(0):
                    pass  # which clears it away
        parts = [self.incoming / name for name in listed(self.incoming) if name.endswith(".part")]
        parts = [path for path in parts if DIGEST.fullmatch(path.stem) and path.stem != keep]
        parts.sort(key=lambda path: (_changed(path), path.name), reverse=True)
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

    def forget(self, digests: Iterable[str]) -> None:
        """Tell the trusted versions that these are kept no more, and give back what their assembled copies take."""
        from seed_runtime import trust
        from seed_runtime.assembly.cache import ModelCache, default_root

        gone = [digest for digest in digests if not self.holders(digest)]
        if not gone:
            return
        trust.forget(gone)
        cache = ModelCache(default_root(), 0)
        # One that can't be removed now goes when the cache needs its room.
        with contextlib.suppress(OSError):
            for digest in gone:
                cache.remove(digest)


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat(follow_symlinks=False).st_mtime
    return 0.0
