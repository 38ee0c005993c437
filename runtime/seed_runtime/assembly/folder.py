"""Folders that an assembled model may replace; `system.folders` carries the replacement out."""

from __future__ import annotations

import mmap
import os
from contextlib import AbstractContextManager
from pathlib import Path

from seed_runtime import skeletons
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.format import parts
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
    return atomic_folder(target, folder_kind())


def _is_replaceable(target: Path) -> bool:
    """Return whether `target` is an empty folder, or holds a model as `assemble` leaves it and nothing else."""
    if not target.is_dir():
        return False
    names = set(os.listdir(target))
    if not names:
        return True
    kind = next((kind for kind in skeletons.KINDS.values() if _are_files_of(kind, names)), None)
    if (
        kind is None
        or not kind.is_told_apart
        or any((target / name).is_symlink() or not (target / name).is_file() for name in names)
    ):
        return False
    # A user's own model.onnx may stand beside a file of that name as well, so the skeleton is read.
    with open(target / kind.layout.model_file, "rb") as file:
        if not 0 < os.fstat(file.fileno()).st_size <= PART_RAW_MAX:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                kind.scan(data)
            except (FormatError, UnsupportedError):
                return False
    return True


def _are_files_of(kind: skeletons.Kind, names: set[str]) -> bool:
    """Return whether a model of this kind is assembled to files of these names, with or without further parts."""
    own = {kind.layout.model_file, kind.layout.weights_file}
    return own <= names <= own | _part_files()


def _part_files() -> set[str]:
    """Return the files that parts other than skeletons become."""
    return {kind.file for kind in parts.KINDS.values() if kind.file is not None and not kind.is_skeleton}


def folder_kind() -> FolderKind:
    """Return what `atomic_folder` must know of folders that hold an assembled model and nothing else."""
    own = {name for kind in skeletons.KINDS.values() for name in (kind.layout.model_file, kind.layout.weights_file)}
    return FolderKind("an assembled model", frozenset(own | _part_files()), _is_replaceable)
