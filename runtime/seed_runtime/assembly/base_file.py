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

from seed_runtime.errors import FormatError
from seed_runtime.format.sections.holes import Hole


class BaseFile:
    """The weights of an assembled base, as `codecs.base.BaseWeights`. A context manager that closes the file.

    Memory: one window. What is read isn't checked: the digest of the weights that are made of it is.
    """

    def __init__(
        self, path: Path, places: Sequence[int], holes: Sequence[Hole], of_base: Sequence[int | None] | None = None
    ) -> None:
        """Open the file.

        Args:
            path: the file that holds the base's weights.
            places: offset of each of the base's tensors in it [B].
            holes: of the seed that is made.
            of_base: number of the base's hole for each of `holes`, None where there is none (`holes_of_base`); None
                where both have the same holes.
        """
        self._places, self._holes, self._of_base = places, holes, of_base
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  __exit__ closes it

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Return elements of the base's tensor for a hole; see `BaseWeights`."""
        of_base = hole if self._of_base is None else self._of_base[hole]
        if of_base is None:
            raise FormatError(f"hole {hole}", "it is coded by what differs from the base, which has no such tensor")
        dtype = self._holes[hole].dtype
        found = np.empty(dtype.size(stop - start) // dtype.storage.itemsize, dtype.storage)
        left = found.view(np.uint8).data
        self._file.seek(self._places[of_base] + dtype.size(start), os.SEEK_SET)
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


def holes_of_base(holes: Sequence[Hole], base: Sequence[Hole]) -> list[int | None]:
    """Return the number of the base's hole for each hole, None where there is none (SPEC.md, "Seeds with a base").

    Args:
        holes: of a seed that has holes of its own.
        base: of its base.
    """
    known = Counter(map(_key, base))
    places = {_key(hole): number for number, hole in enumerate(base) if known[_key(hole)] == 1}
    return [places.get(_key(hole)) for hole in holes]


def _key(hole: Hole) -> tuple[bytes, int, tuple[int, ...]]:
    return hole.name_digest, hole.dtype.code, hole.dims
