"""Destinations of decoded weights: a file of their own beside the model, or ranges of the model file.

A layout knows the files of an assembled model, compares a skeleton with the seed's table of holes, and makes the output
that the decoded bytes are written to. All limits and digests are checked by the caller (assembly/assemble.py).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol

from seed_runtime.format.header import Header
from seed_runtime.format.parts.kind import HoleLike
from seed_runtime.skeletons.cut_file import CutFile, front_bytes
from seed_runtime.skeletons.info import SkeletonInfo, check_holes, refuse, same_tensor

_PORTION: Final = 1 << 20
"""Bytes that are read from a file at a time."""


class Output(Protocol):
    """Takes the weights in the order of the holes. A context manager that closes its file.

    Nothing is brought to the disk: see `assemble_into`.
    """

    def skip(self, size: int) -> None:
        """Go on to the next hole: `size` bytes of the weights file stand before it."""
        ...

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the present hole."""
        ...

    def __enter__(self) -> Output: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Layout(Protocol):
    """Layout of an assembled model: the files that skeleton and weights become."""

    @property
    def model_file(self) -> str:
        """The file that a backend opens."""
        ...

    @property
    def weights_file(self) -> str:
        """The file that holds the weights; it may be the model file."""
        ...

    def sizes(self, header: Header) -> dict[str, int]:
        """Return the files that skeleton and weights become, with their sizes [B]."""
        ...

    def places(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> list[int]:
        """Return the offset of each hole's tensor in the weights file of an assembled model [B]."""
        ...

    def check(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> tuple[str, ...]:
        """Return the name of each hole's tensor, after checking that skeleton and holes describe the same tensors.

        Raises:
            FormatError: they differ.
        """
        ...

    def begin(self, folder: Path, skeleton: bytes | memoryview) -> Output:
        """Make the files in `folder`, and the output that will take the weights.

        Args:
            folder: an empty folder.
            skeleton: unpacked, and accepted by `check`. It isn't held.
        """
        ...

    def is_intact(self, folder: Path, skeleton: bytes | memoryview, header: Header) -> bool:
        """Return whether the files in `folder` are, bit for bit, what skeleton and weights give."""
        ...


@dataclass(frozen=True)
class WeightsBeside:
    """The skeleton is the model file as it is; the weights are a file beside it, zeros between the holes included."""

    model_file: str
    weights_file: str

    def sizes(self, header: Header) -> dict[str, int]:
        """Return the model file and the weights file with their sizes [B]."""
        return {self.model_file: header.skeleton.raw_size, self.weights_file: header.weights.size}

    def places(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> list[int]:
        """Return the offset of each hole (see `Layout.places`)."""
        return [hole.offset for hole in holes]

    def check(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> tuple[str, ...]:
        """Return the name of each hole's tensor (see `Layout.check`). Both have the same offset in the weights file."""
        return check_holes(info, holes)

    def begin(self, folder: Path, skeleton: bytes | memoryview) -> Output:
        """Write the model file, and open the weights file (see `Layout.begin`)."""
        (folder / self.model_file).write_bytes(skeleton)
        return _FileOutput(folder / self.weights_file)

    def is_intact(self, folder: Path, skeleton: bytes | memoryview, header: Header) -> bool:
        """Return whether both files are, bit for bit, what skeleton and weights give."""
        held = _digest_of(folder / self.weights_file), _digest_of(folder / self.model_file)
        return held == (header.weights.digest, hashlib.sha256(skeleton).digest())


@dataclass(frozen=True)
class WeightsWithin:
    """The model file is a skeleton with ranges left out, which are the weights.

    A skeleton is what cut_file.py reads, and `SkeletonInfo.tensors` has its ranges in the order of the holes. What
    stands between holes in the weights file (`Hole.skip`) is not written.
    """

    model_file: str

    @property
    def weights_file(self) -> str:
        """The model file: it holds the weights."""
        return self.model_file

    def sizes(self, header: Header) -> dict[str, int]:
        """Return the model file, which is the only one, with its size [B]."""
        kept = header.skeleton.raw_size - front_bytes(len(header.holes))
        return {self.model_file: kept + sum(hole.size for hole in header.holes)}

    def places(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> list[int]:
        """Return the offset of each range (see `Layout.places`)."""
        return [tensor.offset for tensor in info.tensors]

    def check(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> tuple[str, ...]:
        """Compare each hole with its range (see `Layout.check`); ranges can't overlap (cut_file.py)."""
        if len(info.tensors) != len(holes):
            refuse(f"it has {len(info.tensors):,} ranges for weights and the table of holes has {len(holes):,}")
        for index, (tensor, hole) in enumerate(zip(info.tensors, holes, strict=True)):
            same_tensor(index, hole, tensor)
        return tuple(tensor.name for tensor in info.tensors)

    def begin(self, folder: Path, skeleton: bytes | memoryview) -> Output:
        """Write what the skeleton holds of the model file, and open it (see `Layout.begin`)."""
        return _RangesOutput(folder / self.model_file, CutFile(memoryview(skeleton)))

    def is_intact(self, folder: Path, skeleton: bytes | memoryview, header: Header) -> bool:
        """Return whether the model file is, bit for bit, what skeleton and weights give."""
        cut, weights = CutFile(memoryview(skeleton)), hashlib.sha256()
        with (folder / self.model_file).open("rb", buffering=0) as file:
            if file.seek(0, os.SEEK_END) != cut.size:
                return False
            for start, piece in cut.kept:
                file.seek(start)
                if not _equals(file, piece):
                    return False
            for hole, place in zip(header.holes, cut.ranges, strict=True):
                weights.update(bytes(hole.skip))
                file.seek(place.offset)
                if not _hash_into(weights, file, place.size):
                    return False
        return weights.digest() == header.weights.digest


class _FileOutput:
    """A file that is written front to back.

    Unbuffered: windows go to the page cache at once, and no second copy of them counts as ours.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  __exit__ closes it

    def skip(self, size: int) -> None:
        self.write(memoryview(bytes(size)))

    def write(self, data: memoryview) -> None:
        # An unbuffered write may take less than it was given.
        while data:
            data = data[self._file.write(data) or 0 :]

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class _RangesOutput(_FileOutput):
    """The model file: what was kept is written at once, then each range in the order of the holes."""

    def __init__(self, path: Path, cut: CutFile) -> None:
        super().__init__(path)
        try:
            for start, piece in cut.kept:
                self._file.seek(start)
                self.write(piece)
            self._file.truncate(cut.size)
        except BaseException:
            self._file.close()
            raise
        self._offsets = iter([place.offset for place in cut.ranges])

    def skip(self, size: int) -> None:
        self._file.seek(next(self._offsets))


def _digest_of(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _hash_into(digest: hashlib._Hash, file: BinaryIO, size: int) -> bool:
    """Hash the next bytes of a file; return whether it has as many."""
    while size:
        data = file.read(min(size, _PORTION))
        if not data:
            return False
        digest.update(data)
        size -= len(data)
    return True


def _equals(file: BinaryIO, expected: memoryview) -> bool:
    """Read as many bytes as `expected` has; return whether they are the same."""
    while expected:
        data = file.read(min(len(expected), _PORTION))
        if not data or data != expected[: len(data)]:
            return False
        expected = expected[len(data) :]
    return True
