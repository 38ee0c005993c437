"""Destinations of decoded weights: a file of their own beside the model, or ranges of the model file.

A layout knows the files of an assembled model, compares a skeleton with the seed's table of holes, and makes the output
that the decoded bytes are written to. All limits and digests are checked by the caller (assembly/assemble.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol

from seed_runtime.errors import FormatError
from seed_runtime.format.header import Header
from seed_runtime.format.parts.kind import HoleLike
from seed_runtime.skeletons.info import ExternalTensor, SkeletonInfo, check_holes, refuse, same_tensor

_PORTION: Final = 1 << 20
"""Bytes that are read from a file at a time."""


class Output(Protocol):
    """Takes the weights in the order of the holes. A context manager that closes its file."""

    def skip(self, size: int) -> None:
        """Go on to the next hole: `size` bytes of the weights file stand before it."""
        ...

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the present hole."""
        ...

    def finish(self) -> None:
        """Write what follows the last hole. Nothing is brought to the disk: see `assemble_into`."""
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

    def held_bytes(self, header: Header) -> int:
        """Return what an open output holds in memory while streams are decoded [B]."""
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

    def begin(self, folder: Path, skeleton: bytes | memoryview, info: SkeletonInfo) -> Output:
        """Make the files in `folder`, and the output that will take the weights.

        Args:
            folder: an empty folder.
            skeleton: unpacked and checked.
            info: of the skeleton, as `check` accepted it.
        """
        ...

    def is_intact(self, folder: Path, skeleton: bytes | memoryview, info: SkeletonInfo, header: Header) -> bool:
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

    def held_bytes(self, header: Header) -> int:
        """Return 0: an open output holds none of the model's bytes (see `Layout.held_bytes`)."""
        return 0

    def places(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> list[int]:
        """Return the offset of each hole (see `Layout.places`)."""
        return [hole.offset for hole in holes]

    def check(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> tuple[str, ...]:
        """Return the name of each hole's tensor (see `Layout.check`). Both have the same offset in the weights file."""
        return check_holes(info, holes)

    def begin(self, folder: Path, skeleton: bytes | memoryview, info: SkeletonInfo) -> Output:
        """Write the model file, and open the weights file. Neither `skeleton` nor `info` is held."""
        (folder / self.model_file).write_bytes(skeleton)
        return _FileOutput(folder / self.weights_file)

    def is_intact(self, folder: Path, skeleton: bytes | memoryview, info: SkeletonInfo, header: Header) -> bool:
        """Return whether both files are, bit for bit, what skeleton and weights give."""
        held = _digest_of(folder / self.weights_file), _digest_of(folder / self.model_file)
        return held == (header.weights.digest, hashlib.sha256(skeleton).digest())


@dataclass(frozen=True)
class WeightsWithin:
    """The model file is the skeleton, whose ranges are overwritten by the weights.

    The n-th hole is the n-th range of the skeleton, `SkeletonInfo.tensors` in the order of their offsets. What stands
    between holes in the weights file (`Hole.skip`) is not written: the bytes between ranges are the skeleton's own.
    """

    model_file: str

    @property
    def weights_file(self) -> str:
        """The model file: it holds the weights."""
        return self.model_file

    def sizes(self, header: Header) -> dict[str, int]:
        """Return the model file, which is the only one, with its size [B]."""
        return {self.model_file: header.skeleton.raw_size}

    def held_bytes(self, header: Header) -> int:
        """Return the size of the skeleton, which an open output holds [B]."""
        return header.skeleton.raw_size

    def places(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> list[int]:
        """Return the offset of each range (see `Layout.places`)."""
        return [tensor.offset for tensor in _ranges(info)]

    def check(self, info: SkeletonInfo, holes: Sequence[HoleLike]) -> tuple[str, ...]:
        """Compare holes and ranges in their order (see `Layout.check`). Ranges must not overlap."""
        ranges, end = _ranges(info), 0
        if len(ranges) != len(holes):
            refuse(f"it has {len(ranges):,} ranges for weights and the table of holes has {len(holes):,}")
        for index, (tensor, hole) in enumerate(zip(ranges, holes, strict=True)):
            if tensor.offset < end:
                refuse(f"the ranges of two tensors overlap at offset {tensor.offset:,}")
            same_tensor(index, hole, tensor)
            end = tensor.offset + tensor.size
        return tuple(tensor.name for tensor in ranges)

    def begin(self, folder: Path, skeleton: bytes | memoryview, info: SkeletonInfo) -> Output:
        """Open the model file. The skeleton is held until the output is closed.

        Raises:
            FormatError: a range reaches past the skeleton's end.
        """
        return _RangesOutput(folder / self.model_file, memoryview(skeleton), _ranges(info))

    def is_intact(self, folder: Path, skeleton: bytes | memoryview, info: SkeletonInfo, header: Header) -> bool:
        """Return whether the model file is, bit for bit, what skeleton and weights give."""
        between, weights = memoryview(skeleton), hashlib.sha256()
        with (folder / self.model_file).open("rb", buffering=0) as file:
            position = 0
            for hole, tensor in zip(header.holes, _ranges(info), strict=True):
                if not _equals(file, between[position : tensor.offset]):
                    return False
                weights.update(bytes(hole.skip))
                left = tensor.size
                while left:
                    data = file.read(min(left, _PORTION))
                    if not data:
                        return False
                    weights.update(data)
                    left -= len(data)
                position = tensor.offset + tensor.size
            return _equals(file, between[position:]) and not file.read(1) and weights.digest() == header.weights.digest


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

    def finish(self) -> None:
        pass

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class _RangesOutput(_FileOutput):
    """The model file: a skeleton whose ranges are filled, written front to back as well."""

    def __init__(self, path: Path, skeleton: memoryview, ranges: Sequence[ExternalTensor]) -> None:
        if ranges and ranges[-1].offset + ranges[-1].size > len(skeleton):
            raise FormatError("skeleton", f"the range of tensor {ranges[-1].name!r} reaches past its end")
        super().__init__(path)
        self._skeleton, self._ranges = skeleton, iter(ranges)
        self._position = 0

    def skip(self, size: int) -> None:
        tensor = next(self._ranges)
        super().write(self._skeleton[self._position : tensor.offset])
        self._position = tensor.offset + tensor.size

    def finish(self) -> None:
        super().write(self._skeleton[self._position :])


def _ranges(info: SkeletonInfo) -> list[ExternalTensor]:
    return sorted(info.tensors, key=lambda tensor: tensor.offset)


def _digest_of(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _equals(file: BinaryIO, expected: memoryview) -> bool:
    """Read as many bytes as `expected` has; return whether they are the same."""
    while expected:
        data = file.read(min(len(expected), _PORTION))
        if not data or data != expected[: len(data)]:
            return False
        expected = expected[len(data) :]
    return True
