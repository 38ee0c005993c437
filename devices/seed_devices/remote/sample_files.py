"""Samples of this machine as files that devices are sent: an `.npz` file as it is, or a folder packed into one.

Folders are packed here, since a device has no Pillow and its link is slow: pictures are sent at the size at which the
model takes them. The same folder gives the same bytes, so that a transfer that was cut goes on.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib import format as npy

from seed_devices.remote.agent_client import Progress
from seed_runtime.agent.protocol.schema import DATA_MAX
from seed_runtime.backends import TensorSpec
from seed_runtime.data.rows import RowSource, as_rows
from seed_runtime.data.sample_files import open_samples
from seed_runtime.data.sample_folder import require_no_pixels
from seed_runtime.errors import InputError

_PORTION: Final = 1 << 20
"""Bytes that are read at once."""


@dataclass(frozen=True)
class ModelInputs:
    """What a model takes as samples.

    Args:
        inputs: its inputs.
        classes: how many it has.
    """

    inputs: tuple[TensorSpec, ...]
    classes: int


@dataclass(frozen=True)
class SampleFile:
    """A file of samples.

    Args:
        path: of the `.npz` file.
        digest: its SHA-256 in hexadecimal.
        size: of the file [B].
    """

    path: Path
    digest: str
    size: int


class SampleFiles:
    """The files that devices are sent, each read or packed once, however many devices take it. Thread-safe.

    Args:
        scratch: a temporary folder, for what is packed.
        pixels: a word of `pictures.PIXELS`: what models take pictures as; None where none is given.
    """

    def __init__(self, scratch: Path, pixels: str | None) -> None:
        self._scratch, self._pixels = scratch, pixels
        self._lock = threading.Lock()
        self._found: dict[tuple[Path, ModelInputs | None], SampleFile] = {}

    def check(self, path: Path) -> None:
        """Raise an error for a file that can't be sent, before any device is asked; folders are looked at later.

        Raises:
            InputError: it isn't there, or is no `.npz`.
            UsageError: --pixels is given with it.
        """
        if not path.is_dir():
            require_no_pixels(self._pixels)
            self._file(path, None, None)

    def of(self, path: Path, describe: Callable[[], ModelInputs], progress: Progress) -> SampleFile:
        """Return the file that a device is sent.

        Args:
            path: of an `.npz` file, or of a folder (see `seed_runtime.data.sample_folder`).
            describe: asks the device what its model takes; called for a folder alone.
            progress: called with the bytes that are packed.

        Raises:
            InputError: the samples can't be read, or aren't for this model.
            UnsupportedError: they are pictures, and Pillow isn't installed here.
            DiskSpaceError: they don't fit on this machine's disk.
        """
        return self._file(path, describe() if path.is_dir() else None, progress)

    def _file(self, path: Path, model: ModelInputs | None, progress: Progress | None) -> SampleFile:
        with self._lock:
            found = self._found.get((path, model))
            if found is None:
                packed = path
                if model is not None:
                    packed = self._scratch / f"{len(self._found)}.npz"
                    self._pack(path, model, packed, progress)
                found = self._found[path, model] = SampleFile(packed, *file_digest(packed))
            return found

    def _pack(self, folder: Path, model: ModelInputs, target: Path, progress: Progress | None) -> None:
        with open_samples(str(folder), model.inputs, classes=model.classes, pixels=self._pixels) as samples:
            _write(as_rows(samples), target, progress)


def file_digest(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file in hexadecimal, and its size [B].

    Raises:
        InputError: it can't be read, or is no `.npz`.
    """
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(_PORTION):
                if not size and not data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                    raise InputError(f"{path} is no .npz file; write one with numpy.savez(file, input=x, labels=y)")
                found.update(data)
                size += len(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give --data an .npz file or a folder of samples") from None
    if size > DATA_MAX:
        raise InputError(f"{path} has {size:,} bytes, at most {DATA_MAX:,} are sent; give fewer samples")
    if not size:
        raise InputError(f"{path} is empty; write it with numpy.savez(file, input=x, labels=y)")
    return found.hexdigest(), size


def _write(samples: dict[str, RowSource], target: Path, progress: Progress | None) -> None:
    """Write samples as a compressed `.npz` file; nothing of their size is held."""
    total = sum(prod(rows.shape) * rows.dtype.itemsize for rows in samples.values())
    done = 0
    with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
        for name, rows in samples.items():
            # A fixed time: the same samples give the same file.
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                header = {"descr": npy.dtype_to_descr(rows.dtype), "fortran_order": False, "shape": rows.shape}
                npy.write_array_header_1_0(file, header)
                for block in rows.blocks():
                    file.write(block.view(np.uint8).data)
                    done += block.nbytes
                    if progress is not None:
                        progress("pack", done, total)
