"""Samples in files of a temporary folder, as they are, so that their rows can be read: what was compressed, say."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.data.rows import FileRows, check_elements
from seed_runtime.data.stored import ArrayReader, StoredArray
from seed_runtime.errors import DiskSpaceError, InputError
from seed_runtime.memory.cgroup import cgroup_limit
from seed_runtime.memory.plan import check_budget
from seed_runtime.memory.process import baseline


@dataclass
class _Column:
    file: IO[bytes]
    path: Path
    shape: tuple[int, ...]
    """Shape of one sample."""
    dtype: np.dtype[Any]
    count: int = 0


class Spool:
    """Arrays that grow by samples, each in a file.

    Args:
        folder: a temporary one, whose maker removes it.
        limit: of --max-memory; None for none [B].
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder, self._limit = folder, limit
        self._columns: dict[str, _Column] = {}

    def require_space(self, size: int) -> None:
        """Raise DiskSpaceError unless so many bytes fit on the disk."""
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise DiskSpaceError(str(self._folder), size, free)

    def add(self, name: str, samples: Array) -> None:
        """Append samples, of the shape and type of those before."""
        self._column(name, samples.shape[1:], samples.dtype, len(samples)).file.write(
            np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data
        )

    def copy(self, name: str, array: StoredArray, *, is_single: bool = False) -> None:
        """Append the samples of a file.

        Args:
            name: of the array that grows.
            array: samples first, or a sample.
            is_single: whether it is one sample without an axis for that.

        Raises:
            InputError: the file is damaged.
            MemoryBudgetError: its first axis is the innermost one, and it doesn't fit into memory as a whole.
        """
        check_elements(array)
        shape = (1, *array.shape) if is_single else array.shape
        file = self._column(name, shape[1:], array.dtype, shape[0]).file
        with contextlib.closing(ArrayReader(array)) as reader:
            if array.is_fortran:
                check_budget(
                    f"reading {array.where}", baseline().resident + 2 * array.nbytes, self._limit, cgroup_limit()
                )
                whole = np.empty(array.shape[::-1], array.dtype)
                reader.read_into(whole)
                file.write(np.ascontiguousarray(whole.T).reshape(-1).view(np.uint8).data)
                return
            for part in reader.portions():
                file.write(part.view(np.uint8).data)

    def rows(self, name: str) -> FileRows:
        """Return the samples that were appended. No more can be."""
        column = self._columns[name]
        column.file.flush()

        def open_data() -> IO[bytes]:
            return open(column.path, "rb")

        shape = (column.count, *column.shape)
        array = StoredArray(repr(name), name, shape, column.dtype, False, open_data)
        return FileRows(array, column.file.fileno(), 0)

    def close(self) -> None:
        """Close the files."""
        for column in self._columns.values():
            column.file.close()

    def _column(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> _Column:
        if name not in self._columns:
            path = self._folder / f"{len(self._columns)}.rows"
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")
            self._columns[name] = _Column(file, path, shape, dtype)
        column = self._columns[name]
        if (column.shape, column.dtype) != (shape, dtype):
            raise InputError(f"samples of {name!r} were changed while they were read; run the command again")
        column.count += count
        return column
