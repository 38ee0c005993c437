"""Checkpoints: what a run goes on from that was killed, as one `.npz` file that is replaced in one step.

The array `record` holds JSON: the key of the run (its seed, samples, settings and libraries), the state after the last
whole tier, and how far the tier is that runs. All other arrays are values of tensors. Nothing is unpickled, and a file
that is damaged, of another run, or that another user could have written is never read beyond its record, nor replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shlex
import stat
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy

from seed_runtime.backends import Array, usable_cores
from seed_runtime.data.rows import check_elements
from seed_runtime.data.stored import MEMBERS_MAX, ArrayReader, StoredArray, open_arrays
from seed_runtime.errors import InputError, UsageError
from seed_runtime.system.files import atomic_write
from seed_runtime.tune.records import Settings
from seed_runtime.tune.samples import Samples, Split
from seed_runtime.version import __version__

INTERVAL_S: Final = 30.0
"""Least time between two checkpoints [s]."""
TIME_SHARE: Final = 0.05
"""Largest share of the time that writing checkpoints takes: those of all weights are large, and cards slow."""
RECORD_MAX: Final = 1 << 20
"""Largest size of the record [B]."""
_RECORD, _FORMAT = "record", 1
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


Key = Mapping[str, str | int | float | None]
"""What decides what a run learns, but for its time limit, by the names of `_WORDS`."""
_WORDS: Final = {
    "seed": "another seed",
    "samples": "other data",
    "held_out": "another choice of what is held out",
    "program": "another version of this program",
    "mode": "--mode",
    "loss": "--loss",
    "steps": "--steps",
    "rate": "--lr",
    "optimizer": "--optimizer",
    "batch": "batch",
    "rng_seed": "--rng-seed",
    "delta_size": "--delta-size",
}
"""Parts of a key without which a run can't go on, in the user's words."""
_ROUNDING: Final = {
    "max_memory": "--max-memory",
    "threads": "--threads",
    "numpy": "NumPy",
    "backend": "ONNX Runtime",
}
"""Parts of a key that change sums in their last digits alone."""


def run_key(seed: bytes, samples: Samples, split: Split, settings: Settings, backend: str) -> Key:
    """Return what decides what a run learns.

    Args:
        seed: digest of the seed.
        samples: what it learns from.
        split: what they are for.
        settings: of the run.
        backend: version of the backend's library.
    """
    rows = (split.train, split.validation, split.held_out)
    names = ("mode", "loss", "steps", "rate", "optimizer", "batch", "rng_seed", "delta_size", "max_memory")
    return {
        "seed": seed.hex(),
        "samples": samples.digest,
        "held_out": hashlib.sha256(b"".join(each.astype("<i8").tobytes() + b"|" for each in rows)).hexdigest(),
        "program": __version__,
        "threads": settings.threads or usable_cores(),
        "numpy": np.__version__,
        "backend": backend,
        **{name: getattr(settings, name) for name in names},
    }


class CheckpointError(UsageError):
    """A checkpoint that this run can't go on from; nothing was changed.

    Attributes:
        path: of the checkpoint.
        problem: what it is.
        differing: parts of its key that aren't this run's; none where it can't be read.
    """

    def __init__(self, path: Path, problem: str, differing: Sequence[str] = ()) -> None:
        advice = "give the same options to go on, or remove it" if differing else "remove it"
        super().__init__(f"{path} {problem}; {advice} to start over: rm {shlex.quote(str(path))}")
        self.args = (path, problem, differing)
        self.path, self.problem, self.differing = path, problem, tuple(differing)

    @property
    def is_of_options(self) -> bool:
        """Whether it is of the same seed and data, so that other options go on from it."""
        return bool(self.differing) and not {"seed", "samples", "program"} & set(self.differing)


class Checkpoint:
    """A checkpoint that is open and whole.

    Attributes:
        record: what was written as such.
    """

    def __init__(self, path: Path, record: dict[str, Any], arrays: Mapping[str, StoredArray]) -> None:
        self._path, self.record, self._arrays = path, record, arrays

    def take_tier(self, tier: str) -> dict[str, Any] | None:
        """Return the record of a tier that was interrupted, once; None for every other tier."""
        record: dict[str, Any] | None = self.record["tier"]
        if record is None or record["tier"] != tier:
            return None
        self.record["tier"] = None
        return record

    def read_into(self, name: str, out: Array) -> None:
        """Fill an array with the one of this name.

        Raises:
            InputError: there is none, or it has another shape.
        """
        array = self._arrays.get(name)
        if array is None or array.shape != out.shape or array.dtype != out.dtype:
            raise InputError(f"{self._path} doesn't fit this model; remove it to start over")
        with contextlib.closing(ArrayReader(array)) as reader:
            reader.read_into(out)


class CheckpointFile:
    """Where a run writes its checkpoints.

    Args:
        path: of the file, which no other process writes; None to write none. Until it is whole, ".part" is behind its
            name.
        key: of the run; only a checkpoint with the same key, but for what changes rounding, is read.
        notice: gets lines for the user.
    """

    def __init__(self, path: Path | None, key: Key, notice: Callable[[str], None]) -> None:
        self._path, self._key, self._notice = path, key, notice
        self._part = None if path is None else path.with_name(f"{path.name}.part")
        self._written, self._seconds, self._has_failed = time.monotonic(), 0.0, False

    @property
    def is_due(self) -> bool:
        """Whether it is time to write one."""
        wait = max(INTERVAL_S, self._seconds / TIME_SHARE)
        return self._path is not None and time.monotonic() - self._written >= wait

    def write(self, record: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Replace the checkpoint. A disk that is full is worth a notice, and the run goes on."""
        if self._path is None:
            return
        if len(arrays) >= MEMBERS_MAX:
            self._fail(f"this model has too many tensors for {self._path}")
            return
        start, text = time.monotonic(), json.dumps({"format": _FORMAT, "key": self._key, **record}).encode()
        try:
            with atomic_write(self._path, temporary=self._part) as file:
                os.fchmod(file.fileno(), 0o600)
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                    for name, array in {_RECORD: np.frombuffer(text, np.uint8), **arrays}.items():
                        _write_array(archive, name, array)
        except OSError as error:
            self._fail(f"{self._path}: {error.strerror}")
        self._written = time.monotonic()
        self._seconds = self._written - start

    @contextlib.contextmanager
    def opened(self) -> Iterator[Checkpoint | None]:
        """Give the checkpoint of this run for the block; None where there is none.

        Raises:
            CheckpointError: the file is of another run, damaged, or not this user's alone. It stays as it is.
        """
        with contextlib.ExitStack() as stack:
            yield self._open(stack)

    def remove(self) -> None:
        """Remove the checkpoint, since the run has come to its end."""
        for path in (self._path, self._part):
            if path is not None:
                path.unlink(missing_ok=True)

    def _fail(self, reason: str) -> None:
        """Say once why there is no checkpoint."""
        if not self._has_failed:
            self._notice(f"{reason}; without a checkpoint, a power cut loses what is learned")
        self._has_failed = True
        self._written = time.monotonic()

    def _open(self, stack: contextlib.ExitStack) -> Checkpoint | None:
        if self._path is None or not os.path.lexists(self._path):
            return None
        try:
            # The file that is examined is the one that is read.
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, file)
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
                raise CheckpointError(self._path, "isn't a file of this user's alone")
            found = {str(array.name): array for array in stack.enter_context(open_arrays(f"/dev/fd/{file}"))}
            record = _read_record(found.pop(_RECORD))
            self._compare(self._path, dict(record["key"]))
            for array in found.values():
                _check(array)
        except OSError as error:
            what = "a link, and no checkpoint" if error.errno == errno.ELOOP else f"unreadable ({error.strerror})"
            raise CheckpointError(self._path, f"is {what}") from None
        except (InputError, KeyError, TypeError, ValueError, RecursionError):
            raise CheckpointError(self._path, "is no checkpoint of a fine-tune, or a damaged one") from None
        return Checkpoint(self._path, record, found)

    def _compare(self, path: Path, key: dict[str, Any]) -> None:
        """Raise CheckpointError for the key of another run; say where only rounding is another."""
        differing = [name for name in (*_WORDS, *_ROUNDING) if key[name] != self._key[name]]
        if decisive := [name for name in differing if name in _WORDS]:
            if len(decisive) > 1:  # that follows from the others
                decisive = [name for name in decisive if name != "held_out"]
            named = [
                f"{_WORDS[name]} {_word(key[name])}, not {_word(self._key[name])}"
                if _WORDS[name].startswith("--")
                else _WORDS[name]
                for name in decisive
            ]
            raise CheckpointError(path, f"holds a run with {', '.join(named)}", decisive)
        if differing:
            named = [f"{_ROUNDING[name]} {_word(key[name])}, not {_word(self._key[name])}" for name in differing]
            self._notice(f"this run began with {', '.join(named)}: what it learns may differ in its last digits")


def _word(value: object) -> str:
    return "by default" if value is None else str(value)[:80]


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        npy.write_array_header_1_0(member, header)
        member.write(array.reshape(-1).view(np.uint8).data)  # a copy of it isn't held


def _read_record(array: StoredArray) -> dict[str, Any]:
    if array.dtype != np.uint8 or array.nbytes > RECORD_MAX:
        raise ValueError
    out = np.empty(array.nbytes, np.uint8)
    with contextlib.closing(ArrayReader(array)) as reader:
        reader.read_into(out)
    record = json.loads(out.tobytes())
    if record["format"] != _FORMAT:
        raise ValueError
    return dict(record)


def _check(array: StoredArray) -> None:
    """Read an array to its end, where the archive compares its checksum."""
    check_elements(array)
    with contextlib.closing(ArrayReader(array)) as reader:
        for _ in reader.portions():
            pass
