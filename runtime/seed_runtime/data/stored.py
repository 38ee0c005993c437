"""Arrays in `.npz` and `.npy` files: all headers are read first, then the data in portions. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy

from seed_runtime.backends import Array
from seed_runtime.errors import InputError
from seed_runtime.system import wrong_files

MEMBERS_MAX: Final = 4096
"""Largest number of arrays in a file."""
ARRAY_MAX: Final = 1 << 60
"""Largest size of an array that a header may claim, in bytes. What fits into memory is up to the plan."""
_PORTION: Final = 1 << 20
"""Bytes that are read at once."""
_LOCAL_HEADER: Final = 30
"""Size of a member's header before its name [B]."""
_NPY, _ZIP = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class StoredArray:
    """One array of a file, of which only the header has been read. `shape` and `dtype` are as stored."""

    where: str
    """Name of the array in messages."""
    name: str | None
    """Name of the array; None in a `.npy` file."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    """True if the first axis is the innermost one."""
    open_data: Callable[[], IO[bytes]]
    """Function that opens the file where the elements begin."""
    place: tuple[int, int] | None = None
    """Descriptor of the file that holds the elements as they are, and where they begin [B]; None for compressed ones,
    and for pipes."""

    @property
    def nbytes(self) -> int:
        """The size of all elements, in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        """Return type and shape as messages show them."""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class ArrayReader:
    """Reads the elements of one array in order. Close it at the end."""

    def __init__(self, array: StoredArray) -> None:
        """Begin with the first element."""
        self._array = array
        with _damage_as_input_error(array.where):
            self._file = array.open_data()

    def read_into(self, out: Array) -> None:
        """Fill `out`, which is contiguous and of the stored dtype, with the next elements.

        Raises:
            InputError: the file is cut or damaged.
        """
        view = out.reshape(-1).view(np.uint8).data
        with _damage_as_input_error(self._array.where):
            while view:
                part = self._file.read(min(len(view), _PORTION))
                if not part:
                    raise InputError(f"{self._array.where} is cut; copy it again")
                view[: len(part)] = part
                view = view[len(part) :]

    def portions(self) -> Iterator[Array]:
        """Yield all elements in order, in flat arrays of at most a MiB, each of which overwrites the one before.

        An element that is larger is one by itself.

        Raises:
            InputError: the file is cut or damaged.
        """
        dtype, left = self._array.dtype, prod(self._array.shape)
        out = np.empty(max(1, _PORTION // max(1, dtype.itemsize)), dtype)
        while left:
            part = out[: min(left, len(out))]
            self.read_into(part)
            yield part
            left -= len(part)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def open_arrays(path: str) -> Iterator[list[StoredArray]]:
    """Open a file of arrays for the block; stdin if `path` is `-`.

    Yields:
        The arrays, of which only the headers have been read.

    Raises:
        InputError: the file can't be read, is neither `.npz` nor `.npy`, or holds objects.
    """
    where = "stdin" if path == "-" else path
    with contextlib.ExitStack() as stack:
        try:
            if path == "-":
                if sys.stdin is None or sys.stdin.isatty():
                    raise InputError("stdin is a terminal; send an .npz or .npy file into it, or name one")
                file: BinaryIO = stack.enter_context(open(sys.stdin.fileno(), "rb", closefd=False))
            else:
                file = stack.enter_context(open(path, "rb"))
            # Peeked at and not read, since a pipe can't go back to its start.
            start = _peek(file, len(_NPY))
        except OSError as error:
            raise InputError(f"{where}: {error.strerror}; give an .npz or .npy file") from None
        if start[:4] in _ZIP:
            if not file.seekable():
                file = stack.enter_context(_spooled(file))
            with _damage_as_input_error(where):
                archive = stack.enter_context(zipfile.ZipFile(file))
            yield _members(archive, where)
        elif start == _NPY:
            yield [_single(file, where)]
        elif (found := wrong_files.recognise(_peek(file, wrong_files.HEAD_BYTES))) is not None:
            raise InputError(f"{where} is {found.title}; {found.advice}")
        else:
            raise InputError(f"{where} is not an .npz or .npy file; write one with numpy.savez(file, input_name=array)")


def _peek(file: BinaryIO, size: int) -> bytes:
    return file.peek(size)[:size] if isinstance(file, io.BufferedReader) else b""


def _members(archive: zipfile.ZipFile, where: str) -> list[StoredArray]:
    members = archive.infolist()
    if len(members) > MEMBERS_MAX:
        raise InputError(f"{where} holds {len(members):,} arrays, at most {MEMBERS_MAX:,} are read; split the file")
    arrays: list[StoredArray] = []
    for member in members:
        if not member.filename.endswith(".npy"):
            raise InputError(f"{where} holds {member.filename!r}, which is not an array; write it with numpy.savez")
        name = member.filename.removesuffix(".npy")
        if any(array.name == name for array in arrays):
            raise InputError(f"{where} holds two arrays {name!r}; write it again with numpy.savez")
        inside = f"{where}: {name!r}"
        with _damage_as_input_error(inside), archive.open(member) as file:
            shape, fortran, dtype = _header(file, inside)
            start = file.tell()
        if member.file_size - start != prod(shape) * dtype.itemsize:
            raise InputError(f"{inside} has another size than its shape {list(shape)} says; write it again")

        def open_data(member: zipfile.ZipInfo = member, start: int = start) -> IO[bytes]:
            file = archive.open(member)
            file.read(start)
            return file

        place = _place(archive, member, start)
        arrays.append(StoredArray(inside, name, shape, dtype, fortran, open_data, place))
    return arrays


def _place(archive: zipfile.ZipFile, member: zipfile.ZipInfo, start: int) -> tuple[int, int] | None:
    """Return where the bytes of a member begin that isn't compressed, from `start` of them on."""
    if member.compress_type != zipfile.ZIP_STORED or archive.fp is None:
        return None
    # Source: APPNOTE.TXT of PKWARE, 4.3.7: names and extra fields of the local header may differ from the central one.
    descriptor = archive.fp.fileno()
    head = os.pread(descriptor, _LOCAL_HEADER, member.header_offset)
    sizes = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
    return descriptor, member.header_offset + _LOCAL_HEADER + sum(sizes) + start


def _single(file: BinaryIO, where: str) -> StoredArray:
    with _damage_as_input_error(where):
        shape, fortran, dtype = _header(file, where)
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size - file.tell() < prod(shape) * dtype.itemsize:
        raise InputError(f"{where} is cut: its shape is {list(shape)}; copy it again")
    if not stat.S_ISREG(status.st_mode):
        return StoredArray(where, None, shape, dtype, fortran, lambda: file)
    start = file.tell()

    def open_data() -> IO[bytes]:
        again = os.fdopen(os.dup(file.fileno()), "rb")
        again.seek(start)
        return again

    return StoredArray(where, None, shape, dtype, fortran, open_data, (file.fileno(), start))


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} is for structured arrays")
        # Both refuse headers beyond 10,000 bytes before they evaluate them.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where} is not an array that can be read: {error}; write it with numpy.savez") from None
    if (
        any(type(size) is not int or size < 0 for size in shape)
        or prod(size or 1 for size in shape) * dtype.itemsize > ARRAY_MAX
    ):
        raise InputError(f"{where} has a shape that no array has: {list(shape)}; write it with numpy.savez")
    if dtype.hasobject:
        raise InputError(
            f"{where} holds Python objects, which are never loaded; convert it to numbers, or text with .astype(str)"
        )
    if dtype.kind not in "biufUS" or not dtype.itemsize:
        raise InputError(f"{where} holds {dtype}, which is not a type of numbers or text; convert it")
    return tuple(shape), fortran and len(shape) > 1, dtype


@contextlib.contextmanager
def _spooled(pipe: BinaryIO) -> Iterator[BinaryIO]:
    """Copy all of a pipe to a temporary file, since the index of an archive is at its end."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(pipe, file, _PORTION)
        file.seek(0)
        yield file


@contextlib.contextmanager
def _damage_as_input_error(where: str) -> Iterator[None]:
    """Raise InputError for a damaged file."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
            raise InputError(f"{where} can't be read: {error}; save it again without encryption") from None
        raise InputError(f"{where} is damaged ({error}); copy it again, or write it with numpy.savez") from None
