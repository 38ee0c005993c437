"""A base's assembled weights on the disk, read window by window for a seed of differences."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs import BaseWeights
from seed_runtime.errors import FormatError
from seed_runtime.format.sections.holes import Hole

Key = tuple[bytes, int, tuple[int, ...]]


class BaseFile:
    """The weights of an assembled base, as `codecs.base.BaseWeights`. A context manager that closes the file.

    Memory: one window. What is read isn't checked: the digest of the weights that are made of it is.
    """

    def __init__(self, path: Path, places: Sequence[int], holes: Sequence[Hole]) -> None:
        """Open the file.

        Args:
            path: the file that holds the base's weights.
            places: offset of each of the base's tensors in it [B].
            holes: of the base.
        """
        self._places, self._holes = places, holes
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  __exit__ closes it

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Return elements of the base's tensor for a hole; see `BaseWeights`."""
        dtype = self._holes[hole].dtype
        found = np.empty(dtype.size(stop - start) // dtype.storage.itemsize, dtype.storage)
        left = found.view(np.uint8).data
        self._file.seek(self._places[hole] + dtype.size(start), os.SEEK_SET)
        while left:
            got = self._file.readinto(left)
            if not got:
                raise OSError(f"{self._file.name}: it is cut; run the command again")
            left = left[got:]
        return found

    def __enter__(self) -> BaseFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class MappedWeights:
    """A base's weights for the holes of a seed that has holes of its own, as `codecs.base.BaseWeights`."""

    def __init__(self, weights: BaseWeights, of_base: Sequence[int | None]) -> None:
        """Take weights by the base's holes, and the number of the base's hole for each hole (`holes_of_base`)."""
        self._weights, self._of_base = weights, of_base

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Return elements of the base's tensor for a hole; see `BaseWeights`."""
        number = self._of_base[hole]
        if number is None:
            raise FormatError(f"hole {hole}", "it is coded by what differs from the base, which has no such tensor")
        return self._weights.read(number, start, stop)


def holes_of_base(holes: Sequence[Hole], base: Sequence[Hole]) -> list[int | None]:
    """Return the number of the base's hole for each hole, None where there is none (SPEC.md, "Seeds with a base").

    Args:
        holes: of a seed that has holes of its own.
        base: of its base.
    """
    places = places_of(base)
    return [places.get(key_of(hole)) for hole in holes]


def places_of(holes: Sequence[Hole]) -> dict[Key, int]:
    """Return the numbers of the holes that no other one has the key of."""
    keys = [key_of(hole) for hole in holes]
    count = Counter(keys)
    return {key: number for number, key in enumerate(keys) if count[key] == 1}


def key_of(hole: Hole) -> Key:
    """Return what tells a hole apart from others, in any seed: its name's digest, its type and its shape."""
    return hole.name_digest, hole.dtype.code, hole.dims
