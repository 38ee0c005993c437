"""Space on the disk for a push, for which unused models in the cache and rests of fine-tunes are removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.tuning_folder import clear_unused
from seed_runtime.errors import DiskSpaceError
from seed_runtime.system import paths

EXTRA: Final = 1 << 20
"""Bytes that a push needs beside the seed and its weights: records, folders, the file system's journal."""


def require_space(model: InstalledModel, digest: str, base: str | None, seed_bytes: int, weights_bytes: int) -> None:
    """Check that a seed and its assembled weights have space on the disks that they go to.

    If they haven't, assembled models that no process uses are removed from the cache, then what fine-tunes left that no
    process serves.

    Args:
        model: the model whose version the seed will be.
        digest: the seed, whose assembled model is not removed.
        base: the version that it stands on, which is assembled beside it and isn't removed either; None for none.
        seed_bytes: bytes of the seed that have yet to arrive.
        weights_bytes: bytes of the assembled weights, which count unless the model is in the cache already.

    Raises:
        DiskSpaceError: there isn't enough space all the same.
    """
    store, cache = model.store.home, paths.cache_home() / "models"
    sizes = {digest: weights_bytes}
    if base is not None:
        noted = model.record(base).get("weights_bytes")
        sizes[base] = noted if isinstance(noted, int) else weights_bytes
    assembled = sum(size for name, size in sizes.items() if not (cache / name).is_dir())
    needs = [(store, seed_bytes + EXTRA), (existing_parent(cache), assembled)]
    cache_device = os.stat(needs[1][0]).st_dev
    if os.stat(store).st_dev == cache_device:
        needs = [(store, needs[0][1] + needs[1][1])]
    for folder, needed in needs:
        if free_bytes(folder) < needed and os.stat(folder).st_dev == cache_device:
            from seed_runtime.assembly.cache import ModelCache  # imports NumPy

            ModelCache(cache, 0).free_disk(needed, spare=sizes)
        if free_bytes(folder) < needed and os.stat(folder).st_dev == os.stat(store).st_dev:
            clear_unused(store / "tuning")
        if (free := free_bytes(folder)) < needed:
            raise DiskSpaceError(str(folder), needed, free)


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, or of its nearest parent that exists, in bytes."""
    return shutil.disk_usage(existing_parent(folder)).free


def existing_parent(path: Path) -> Path:
    """Return the folder itself if it exists, else its nearest parent that does."""
    while not path.is_dir() and path.parent != path:
        path = path.parent
    return path
