"""Which folders an assembled model may replace: see `system.folders` for how that happens."""

from __future__ import annotations

import mmap
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from seed_runtime import skeletons
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.limits import PART_RAW_MAX
from seed_runtime.system.folders import FolderKind, atomic_folder


def model_folder(target: Path) -> AbstractContextManager[Path]:
    """Create a folder that takes the place of `target` when the block ends without an error.

    Args:
        target: a new folder, an empty one, or an assembled model, which is replaced in one step.

    Returns:
        A context manager that gives the folder to fill.

    Raises:
        InputError: `target` is anything else, see `system.folders.atomic_folder`.
    """
    return atomic_folder(target, MODEL_FOLDER)


def _is_replaceable(target: Path) -> bool:
    """Return whether `target` is an empty folder, or holds a model as `assemble` leaves it and nothing else."""
    if not target.is_dir():
        return False
    names = set(os.listdir(target))
    if not names:
        return True
    kind = next((kind for kind in skeletons.KINDS if names == {kind.model_file, kind.weights_file}), None)
    if kind is None or any((target / name).is_symlink() or not (target / name).is_file() for name in names):
        return False
    # A user's own model.onnx may stand beside a file of that name as well, so the skeleton is read.
    with open(target / kind.model_file, "rb") as file:
        if not 0 < os.fstat(file.fileno()).st_size <= PART_RAW_MAX:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                kind.scan(data)
            except (FormatError, UnsupportedError):
                return False
    return True


MODEL_FOLDER: Final = FolderKind(
    title="an assembled model",
    files=frozenset(name for kind in skeletons.KINDS for name in (kind.model_file, kind.weights_file)),
    is_replaceable=_is_replaceable,
)
"""Folders that hold an assembled model and nothing else."""
