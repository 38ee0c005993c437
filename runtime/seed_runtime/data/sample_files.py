"""Samples for a fine-tune: an `.npz` or `.npy` file, or a folder of them or of pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from seed_runtime.backends import Array, TensorSpec
from seed_runtime.data import stored
from seed_runtime.data.calls import LABELS, UNNAMED
from seed_runtime.data.rows import FileRows, RowSource
from seed_runtime.data.sample_folder import ClassFolders, Shards, require_no_pixels
from seed_runtime.data.spool import Spool
from seed_runtime.data.stored import StoredArray
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.memory.plan import check_budget
from seed_runtime.memory.process import baseline
from seed_runtime.system.scratch import scratch_beside_cache

Samples = dict[str, Array | RowSource]
"""Arrays by the names of inputs, samples first, and `labels`."""


@contextlib.contextmanager
def open_samples(
    path: str,
    inputs: Sequence[TensorSpec],
    *,
    classes: int | None = None,
    pixels: str | None = None,
    limit: int | None = None,
) -> Iterator[Samples]:
    """Open samples for the block; rows of the inputs are read when they are needed, labels are in memory.

    What can't be read row by row, such as compressed arrays and pictures, is copied to a temporary folder beside the
    cache for as long as the block lasts.

    Args:
        path: of a file, or of a folder (see `sample_folder`); "-" for stdin.
        inputs: of the model.
        classes: of the model; None for unknown.
        pixels: a word of `pictures.PIXELS`: what the model takes pictures as; None where none is given.
        limit: of --max-memory; None for none [B].

    Raises:
        InputError: they can't be read, or aren't samples of this model.
        UnsupportedError: pictures are given, and Pillow isn't installed.
        DiskSpaceError: what is copied doesn't fit on the disk.
        MemoryBudgetError: the labels, or a picture, don't fit into memory.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_beside_cache())
        spool = Spool(folder, limit)
        stack.callback(spool.close)
        if path != "-" and os.path.isdir(path):
            root = Path(path)
            names = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
            if any((root / name).is_dir() for name in names):
                yield ClassFolders(root, inputs, classes, pixels, limit).read(spool)
            else:
                require_no_pixels(pixels)
                yield Shards(root, names, inputs).read(spool)
            return
        require_no_pixels(pixels)
        found = stack.enter_context(stored.open_arrays(path))
        yield _of_file(found, inputs, spool, limit)


def _of_file(found: list[StoredArray], inputs: Sequence[TensorSpec], spool: Spool, limit: int | None) -> Samples:
    arrays: Samples = {}
    is_unnamed = len(found) == 1 and len(inputs) == 1 and found[0].name in UNNAMED
    kept = {inputs[0].name if is_unnamed else str(array.name): array for array in found}
    copied = [array for name, array in kept.items() if name != LABELS and array.shape and not _is_direct(array)]
    spool.require_space(sum(array.nbytes for array in copied))
    for name, array in kept.items():
        if name == LABELS or not array.shape:
            check_budget(f"reading {name!r}", baseline().resident + array.nbytes, limit, cgroup_limit())
            arrays[name] = _whole(array)
        elif _is_direct(array) and array.place is not None:
            arrays[name] = FileRows(array, *array.place)
        else:
            spool.copy(name, array)
            arrays[name] = spool.rows(name)
    return arrays


def _is_direct(array: StoredArray) -> bool:
    return array.place is not None and not array.is_fortran


def _whole(array: StoredArray) -> Array:
    out = np.empty(array.shape[::-1] if array.is_fortran else array.shape, array.dtype)
    with contextlib.closing(stored.ArrayReader(array)) as reader:
        reader.read_into(out)
    return out.T if array.is_fortran else out
