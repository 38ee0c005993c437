"""Decoded weights of an archive's seeds, in memory: chains are decoded link by link, each on top of the one before.

Memory: the weights of a few seeds, see KEPT; a host that trains a model holds several times as much.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import seed_runtime
from seed_exporter.archive.links import CHECKPOINT, ONLY_BASE, SEEDS, Link
from seed_runtime.errors import FormatError, UsageError
from seed_runtime.seed import Seed
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE

KEPT: Final = 3
"""Number of seeds whose weights stay in memory: a checkpoint, and two that the next one may be on top of."""
LATEST: Final = "latest"
_NAME: Final = re.compile(r"[0-9a-f]{64}|part")
"""Names of files there: digests of seeds, and of the one that is being written."""
_LATEST_FILES: Final = 2
"""Number of checkpoints whose weights stay on the disk, so that the next one is added without decoding a chain."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A seed and its weights, as `codecs.base.BaseWeights`."""

    seed: Seed
    data: npt.NDArray[np.uint8]
    """Bytes of all holes, without the gaps between them."""
    _starts: list[int] = field(init=False)
    """Place of each hole in `data` [B]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.cumsum([0, *_sizes(self.seed)]).tolist())

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Return elements of a tensor, see `BaseWeights`."""
        dtype, first = self.seed.header.holes[hole].dtype, self._starts[hole]
        return self.data[first + dtype.size(start) : first + dtype.size(stop)].view(dtype.storage)

    def write_files(self, folder: Path) -> Path:
        """Write the model as a device assembles it into a folder that exists; return the model's file.

        Raises:
            FormatError: a device would refuse the skeleton, which may name any file as its weights.
        """
        self.seed.skeleton()
        (folder / WEIGHTS_FILE).write_bytes(b"".join(self._file_blocks()))
        (folder / MODEL_FILE).write_bytes(self.seed.skeleton_bytes())
        return folder / MODEL_FILE

    def bytes_of(self, hole: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of a tensor by the number of its hole."""
        return self.data[self._starts[hole] : self._starts[hole + 1]]

    def digest(self) -> bytes:
        """Compute the digest of the weights file."""
        digest = hashlib.sha256()
        for block in self._file_blocks():
            digest.update(block)
        return digest.digest()

    def _file_blocks(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of the weights file."""
        for number, hole in enumerate(self.seed.header.holes):
            yield bytes(hole.skip)
            yield self.data[self._starts[number] : self._starts[number + 1]].data


class WeightsReader:
    """Decodes chains of an archive, and keeps the last ones."""

    def __init__(self, folder: Path, *, use_latest: bool = True) -> None:
        """Read from this archive.

        Args:
            folder: the archive.
            use_latest: whether decoded weights on the disk may stand in for seeds.
        """
        self._folder, self._use_latest = folder, use_latest
        self._kept: OrderedDict[str, Decoded] = OrderedDict()

    def decode(self, chain: Sequence[Link]) -> Decoded:
        """Return the weights of the last link of a chain, which begins with a key seed.

        Raises:
            FormatError: a seed is damaged.
            FileNotFoundError: one was removed meanwhile.
        """
        seeds: list[Seed] = []
        for link in chain:
            seeds.append(self.open(link, seeds[-1] if seeds else None))
        first, found = 0, None
        for place in range(len(chain) - 1, -1, -1):
            if (found := self._known(chain[place], seeds[place])) is not None:
                first = place + 1
                break
        for seed in seeds[first:]:
            found = self._decode(seed, found)
            self.keep(found)
        assert found is not None
        self.keep(found)
        return found

    def keep(self, decoded: Decoded) -> None:
        """Keep weights in memory, in place of those used least recently."""
        self._kept[decoded.seed.digest.hex()] = decoded
        self._kept.move_to_end(decoded.seed.digest.hex())
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def check_latest(self) -> None:
        """Raise UsageError where the folder of decoded weights is a link or a file, which would be another one's."""
        path = self._folder / LATEST
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError(f"{path} is a link or a file; remove it: it is a folder of the archive's own")

    def save_latest(self, decoded: Decoded) -> None:
        """Write weights beside the archive's seeds, for the next process; older ones are removed.

        Neither synced nor needed, so a full disk is no error: what is read is compared with the seed's digest.
        """
        with contextlib.suppress(OSError):
            (self._folder / LATEST).mkdir(exist_ok=True)
            with self._latest() as folder:
                try:
                    _remove(folder, "part")
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    with open(os.open("part", flags, 0o666, dir_fd=folder), "wb") as file:
                        file.write(decoded.data.data)
                    os.replace("part", decoded.seed.digest.hex(), src_dir_fd=folder, dst_dir_fd=folder)
                finally:
                    _remove(folder, "part")
                self._keep_newest(folder, _LATEST_FILES)

    def drop_latest(self) -> None:
        """Remove the decoded weights from the disk, which makes room."""
        with contextlib.suppress(OSError), self._latest() as folder:
            self._keep_newest(folder, 0)

    @staticmethod
    def _keep_newest(folder: int, count: int) -> None:
        found = [(os.lstat(name, dir_fd=folder).st_mtime_ns, name) for name in os.listdir(folder)]
        ours = sorted((each for each in found if _NAME.fullmatch(each[1])), reverse=True)
        for _, name in ours[count:]:
            _remove(folder, name)

    @contextlib.contextmanager
    def _latest(self) -> Iterator[int]:
        """Open the folder of decoded weights, which must not be a link."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._folder / LATEST, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _known(self, link: Link, seed: Seed) -> Decoded | None:
        """Return weights that are in memory, or on the disk."""
        if (kept := self._kept.get(link.digest)) is not None:
            return kept
        if not self._use_latest:
            return None
        with contextlib.suppress(OSError), self._latest() as folder:
            size = sum(_sizes(seed))
            # Not blocked by a pipe, and no link is followed.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(link.digest, flags, dir_fd=folder), "rb") as file:
                status = os.fstat(file.fileno())
                if stat.S_ISREG(status.st_mode) and status.st_size == size:
                    decoded = Decoded(seed, np.fromfile(file, np.uint8))
                    if decoded.data.size == size and decoded.digest() == seed.header.weights.digest:
                        return decoded
        return None

    def open(self, link: Link, base: Seed | None) -> Seed:
        """Open a seed on top of another one."""
        path = self._folder / SEEDS / f"{link.digest}{CHECKPOINT}"
        if not path.exists():
            path = path.with_suffix(ONLY_BASE)
        seed = seed_runtime.open(path, enforce=False, base=base)
        if seed.digest.hex() != link.digest:
            raise FormatError(path.name, "it is another seed than its name says")
        return seed

    def _decode(self, seed: Seed, base: Decoded | None) -> Decoded:
        data = np.empty(sum(_sizes(seed)), np.uint8)
        seed.decode(base, writer(data))
        return Decoded(seed, data)


def _sizes(seed: Seed) -> list[int]:
    """Return the size of each hole [B]."""
    return [hole.size for hole in seed.header.holes]


def _remove(folder: int, name: str) -> None:
    """Remove a regular file, where there is one."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)


def writer(data: npt.NDArray[np.uint8]) -> Callable[[memoryview], None]:
    """Return a function that writes one block behind the other."""
    place = 0

    def write(block: memoryview) -> None:
        nonlocal place
        data.data[place : place + len(block)] = block
        place += len(block)

    return write
