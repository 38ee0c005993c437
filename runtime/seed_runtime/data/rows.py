"""Arrays whose rows are read when they are needed, from a file or from memory: samples that needn't fit into memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array
from seed_runtime.data.stored import ArrayReader, StoredArray
from seed_runtime.errors import InputError

_BLOCK: Final = 1 << 20
"""Bytes of an array in memory that are given at once."""
ITEM_MAX: Final = 1 << 16
"""Largest element, such as a text of fixed length [B]: a header may claim any size."""
RowNumbers = npt.NDArray[np.int64]


class RowSource(Protocol):
    """An array along whose first axis are samples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, samples first."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements as they are stored."""
        ...

    def read(self, rows: RowNumbers) -> Array:
        """Return some rows, in a new array of the stored type."""
        ...

    def blocks(self) -> Iterator[Array]:
        """Yield all elements in order, in flat arrays of at most some MiB, each of which overwrites the one before.

        Raises:
            InputError: the file is damaged.
        """
        ...


class ArrayRows:
    """An array in memory as a `RowSource`."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def read(self, rows: RowNumbers) -> Array:
        """Return some rows (see `RowSource`)."""
        found: Array = self._array[rows]
        return found

    def blocks(self) -> Iterator[Array]:
        """Yield all elements (see `RowSource`)."""
        rows = max(1, _BLOCK // max(1, prod(self.shape[1:]) * self.dtype.itemsize))
        for start in range(0, len(self._array), rows):
            yield self._array[start : start + rows].reshape(-1)


class FileRows:
    """An array in an open file as a `RowSource`; nothing of it is held.

    Args:
        array: in C order, for reading it from its beginning to its end.
        file: descriptor of the file that holds its elements as they are.
        offset: where they begin [B].

    Raises:
        InputError: an element is larger than ITEM_MAX.
    """

    def __init__(self, array: StoredArray, file: int, offset: int) -> None:
        check_elements(array)
        self._array, self._file, self._offset = array, file, offset
        self.shape, self.dtype = array.shape, array.dtype

    def read(self, rows: RowNumbers) -> Array:
        """Return some rows (see `RowSource`)."""
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = prod(self.shape[1:]) * self.dtype.itemsize
        if size:
            views = out.reshape(len(rows), -1).view(np.uint8)
            for row, view in zip(rows.tolist(), views, strict=True):
                self._fill(view.data, self._offset + row * size)
        return out

    def blocks(self) -> Iterator[Array]:
        """Yield all elements (see `RowSource`)."""
        with contextlib.closing(ArrayReader(self._array)) as reader:
            yield from reader.portions()

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            count = os.preadv(self._file, [view], offset)
            if not count:
                raise InputError(f"{self._array.where} was cut meanwhile; copy it again")
            view, offset = view[count:], offset + count


def as_rows(arrays: Mapping[str, Array | RowSource]) -> dict[str, RowSource]:
    """Return arrays as sources of their rows."""
    return {name: ArrayRows(array) if isinstance(array, np.ndarray) else array for name, array in arrays.items()}


def check_elements(array: StoredArray) -> None:
    """Raise InputError for elements larger than ITEM_MAX, of which blocks can't be held."""
    if array.dtype.itemsize > ITEM_MAX:
        raise InputError(
            f"{array.where} has elements of {array.dtype.itemsize:,} bytes, at most {ITEM_MAX:,} are read; convert it"
        )
