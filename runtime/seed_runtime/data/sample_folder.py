"""Folders of samples: one folder a class, or `.npz` files that each hold a part.

    data/cat/1.png  data/cat/2.npy  data/dog/1.jpg     folders are classes in the order of their names, by code point
    data/0/1.npy    data/7/1.npz                       folders whose names are all numbers are these classes
    data/part-1.npz data/part-2.npz                    each as the one file would be, one behind the other

Hidden files are left out. All headers are read and all sizes compared with the disk before anything is copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array, TensorSpec
from seed_runtime.data.calls import LABELS, UNNAMED
from seed_runtime.data.pictures import SUFFIXES, PictureInput
from seed_runtime.data.rows import RowSource
from seed_runtime.data.spool import Spool
from seed_runtime.data.stored import StoredArray, open_arrays
from seed_runtime.errors import InputError, UsageError

FILES_MAX: Final = 1 << 18
"""Largest number of files of samples in a folder."""
LABELS_MAX: Final = 64 << 20
"""Largest size of all labels of a folder of `.npz` files, which are held in memory [B]."""
_CLASS_DIGITS: Final = 9


@dataclass(frozen=True)
class _File:
    path: Path
    label: int
    is_picture: bool


@dataclass(frozen=True)
class _Bound:
    """An array of a file as samples of an input: several of them, or one without an axis for that."""

    array: StoredArray
    is_single: bool

    @property
    def count(self) -> int:
        return 1 if self.is_single else self.array.shape[0]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.array.shape if self.is_single else self.array.shape[1:]


class _Alike:
    """Requires the samples of each array to have one shape and type."""

    def __init__(self) -> None:
        self.firsts: dict[str, tuple[Path, tuple[int, ...], np.dtype[Any]]] = {}
        """Where the first sample of each array is, its shape and its type."""

    def check(self, name: str, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise InputError for samples that aren't like the first one."""
        first, wanted, wanted_dtype = self.firsts.setdefault(name, (path, shape, dtype))
        if (shape, dtype) != (wanted, wanted_dtype):
            raise InputError(
                f"{path}: a sample of {name!r} is {dtype}{list(shape)}, and in {first} it is "
                f"{wanted_dtype}{list(wanted)}; give all alike"
            )


class ClassFolders:
    """A folder with a folder for each class.

    Args:
        root: the folder.
        inputs: of the model.
        classes: of the model; None for unknown.
        pixels: a word of `pictures.PIXELS`: what the model takes pictures as; None where none is given.
        limit: of --max-memory; None for none [B].
    """

    def __init__(
        self, root: Path, inputs: Sequence[TensorSpec], classes: int | None, pixels: str | None, limit: int | None
    ) -> None:
        self._root, self._inputs, self._classes, self._pixels, self._limit = root, inputs, classes, pixels, limit

    def read(self, spool: Spool) -> dict[str, Array | RowSource]:
        """Copy all samples; return them, and labels.

        Raises:
            InputError: a file can't be read, or is no sample of this model.
            UnsupportedError: pictures are given, and Pillow isn't installed.
            UsageError: the word for pixels is given with arrays, or is none.
        """
        files = list(self._files())
        if not files:
            raise InputError(f"{self._root} holds no samples; put files into its folders, one folder a class")
        if len({file.is_picture for file in files}) > 1:
            raise InputError(f"{self._root} holds pictures and arrays; give folders of one kind")
        samples: dict[str, Array | RowSource] = {}
        if files[0].is_picture:
            counts = [1] * len(files)
            samples[self._inputs[0].name] = self._read_pictures(files, spool)
        else:
            require_no_pixels(self._pixels)
            counts = self._read_arrays(files, spool)
            samples |= {spec.name: spool.rows(spec.name) for spec in self._inputs}
        return samples | {LABELS: np.repeat([file.label for file in files], counts)}

    def _read_pictures(self, files: list[_File], spool: Spool) -> RowSource:
        pictures = PictureInput(self._inputs, self._pixels, self._limit)
        spool.require_space(pictures.size * len(files))
        name = self._inputs[0].name
        for file in files:
            spool.add(name, pictures.decode(file.path))
        return pictures.rows(spool.rows(name))

    def _read_arrays(self, files: list[_File], spool: Spool) -> list[int]:
        """Copy the arrays of all files; return how many samples each file has."""
        alike, size, counts = _Alike(), 0, []
        for file in files:
            with open_arrays(str(file.path)) as arrays:
                found = self._bound(arrays, file.path)
                counts.append(_count(found, file.path))
                for name, each in found.items():
                    alike.check(name, file.path, each.sample_shape, each.array.dtype)
                    size += each.array.nbytes
        spool.require_space(size)
        for file, count in zip(files, counts, strict=True):
            with open_arrays(str(file.path)) as arrays:
                found = self._bound(arrays, file.path)
                _require_unchanged(_count(found, file.path) == count, file.path)
                for name, each in found.items():
                    spool.copy(name, each.array, is_single=each.is_single)
        return counts

    def _files(self) -> Iterator[_File]:
        """Yield all files, in the order of their names in that of their classes."""
        folders = _visible(self._root)
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder} stands beside folders of classes; move it into one, or elsewhere")
        count = 0
        for folder, label in zip(folders, self._labels([folder.name for folder in folders]), strict=True):
            for path in _visible(folder):
                suffix = path.suffix.lower()
                if not path.is_file() or suffix not in (".npy", ".npz", *SUFFIXES):
                    raise InputError(f"{path} is no sample; give .npy, .npz, .png or .jpg files, and no folders")
                count += 1
                if count > FILES_MAX:
                    raise InputError(f"{self._root} holds over {FILES_MAX:,} files; put several samples into one .npz")
                yield _File(path, label, suffix in SUFFIXES)

    def _labels(self, names: list[str]) -> list[int]:
        numbers = [name for name in names if name.isascii() and name.isdigit() and len(name) <= _CLASS_DIGITS]
        if len(numbers) == len(names):
            return [int(name) for name in names]
        if numbers:
            other = next(name for name in names if name not in numbers)
            raise InputError(
                f"{self._root} has folders of numbers, such as {numbers[0]}, and others, such as {other}: number the "
                f"classes, or name them all"
            )
        if self._classes is not None and len(names) != self._classes:
            raise InputError(
                f"{self._root} has {len(names)} folders, and the model {self._classes} classes: folders are classes in "
                f"the order of their names; make one for each, empty ones too, or name them by numbers from 0 on"
            )
        return list(range(len(names)))

    def _bound(self, arrays: list[StoredArray], path: Path) -> dict[str, _Bound]:
        """Return the array of each input."""
        by_name = {str(array.name): array for array in arrays}
        if len(arrays) == 1 and len(self._inputs) == 1 and arrays[0].name in UNNAMED:
            by_name = {self._inputs[0].name: arrays[0]}
        if by_name.keys() != {spec.name for spec in self._inputs}:
            raise InputError(
                f"{path} holds {', '.join(by_name)}, and the model takes {', '.join(map(str, self._inputs))}; give one "
                f"array for each, by its name"
            )
        found = {}
        for spec in self._inputs:
            array = by_name[spec.name]
            rank = len(array.shape) + 1 if spec.shape is None else len(spec.shape)
            if len(array.shape) not in (rank, rank - 1):
                raise InputError(f"{array.where} is {array}, and {spec} is expected; give one sample, or several")
            found[spec.name] = _Bound(array, len(array.shape) == rank - 1)
        return found


class Shards:
    """A folder of `.npz` files, each of which holds a part of the samples.

    Args:
        root: the folder.
        names: of its files, in order.
        inputs: of the model.
    """

    def __init__(self, root: Path, names: Sequence[str], inputs: Sequence[TensorSpec]) -> None:
        self._root, self._names, self._inputs = root, names, inputs

    def read(self, spool: Spool) -> dict[str, Array | RowSource]:
        """Copy all samples; return them, and labels where there are any.

        Raises:
            InputError: a file can't be read, or isn't like the first one.
        """
        if not self._names:
            raise InputError(f"{self._root} is empty; put .npz files into it, or one folder a class")
        sizes, counts = self._sizes()
        if (of_labels := sizes.get(LABELS, 0)) > LABELS_MAX:
            raise InputError(f"the labels in {self._root} take {of_labels:,} bytes, at most {LABELS_MAX:,} are held")
        spool.require_space(sum(sizes.values()))
        for path, count in zip(self._paths(), counts, strict=True):
            with open_arrays(str(path)) as arrays:
                found = {str(array.name): _Bound(array, False) for array in arrays if array.shape}
                _require_unchanged(found.keys() == sizes.keys() and _count(found, path) == count, path)
                for array in arrays:
                    spool.copy(str(array.name), array)
        samples: dict[str, Array | RowSource] = {name: spool.rows(name) for name in sizes}
        if LABELS in sizes:
            rows = spool.rows(LABELS)
            samples[LABELS] = rows.read(np.arange(rows.shape[0]))
        return samples

    def _sizes(self) -> tuple[dict[str, int], list[int]]:
        """Return the size of each array in all files [B], and how many samples each file has, by their headers."""
        alike, sizes, counts = _Alike(), dict[str, int](), list[int]()
        for path in self._paths():
            with open_arrays(str(path)) as arrays:
                names = {str(array.name) for array in arrays}
                if sizes and names != sizes.keys():
                    raise InputError(
                        f"{path} holds {', '.join(sorted(names))}, and {self._names[0]} others; split alike"
                    )
                for name, array in ((str(array.name), array) for array in arrays):
                    if not array.shape:
                        raise InputError(f"{array.where} is a single {array.dtype}; give arrays, samples first")
                    alike.check(name, path, array.shape[1:], array.dtype)
                    sizes[name] = sizes.get(name, 0) + array.nbytes
                # Of each file, or the labels of one would be those of another one's samples.
                counts.append(_count({str(array.name): _Bound(array, False) for array in arrays}, path))
        return sizes, counts

    def _paths(self) -> Iterator[Path]:
        for name in self._names:
            if not name.lower().endswith(".npz"):
                raise InputError(f"{self._root / name} is no .npz file; give these alone, or one folder a class")
            if not (self._root / name).is_file():
                raise InputError(f"{self._root / name} is no file; remove it")
            yield self._root / name


def require_no_pixels(pixels: str | None) -> None:
    """Raise UsageError where --pixels is given with arrays."""
    if pixels is not None:
        raise UsageError("--pixels is about pictures, and these are arrays; leave it out")


def _visible(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; let this user read it") from None


def _count(found: dict[str, _Bound], path: Path) -> int:
    """Return how many samples a file has."""
    counts = {name: each.count for name, each in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"{path} holds different numbers of samples: {listed}; give one row of each for a sample")
    return next(iter(counts.values()), 0)


def _require_unchanged(is_unchanged: bool, path: Path) -> None:
    if not is_unchanged:
        raise InputError(f"{path} was changed while the folder was read; run the command again")
