"""Step "bytes": the first and last bytes of any file as numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, InputError
from seed_runtime.limits import FILE_BYTES_MAX
from seed_runtime.processing.answers import Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.items import FILE, Item
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, Prepared, Specs, check_input, one_call

_DTYPES: Final = ("int32", "int64", "float32")
_PAD_MOST: Final = 1 << 16


@dataclass(frozen=True)
class BytesStep:
    """Fills one input with bytes of both ends of a file, as numbers from 0 to 255."""

    where: str
    fills: Mapping[str, str]
    first: int
    """Numbers of the beginning, filled up behind it."""
    last: int
    """Numbers of the end, filled up before it."""
    block: int
    """Bytes that are read at each end, of which `first` and `last` are taken [B]."""
    strip: bool
    """Whether white space before the beginning and behind the end is left out, as far as blocks reach."""
    pad: int
    """Number where the file has no more bytes."""
    kind: str = "bytes"
    medium: str = FILE

    def check(self, inputs: Specs) -> None:
        """Raise FormatError if the input is of another size (see `InputStep`)."""
        check_input(self.where, inputs[self.fills["bytes"]], _DTYPES, (1, self.first + self.last))

    def prepare(self, item: Item | None, facts: Facts, inputs: Specs, limit: int | None) -> Prepared:
        """Read both ends of a file (see `InputStep`)."""
        assert item is not None
        with item.open() as file:
            try:
                beginning, end = self._ends(file)
            except OSError as error:
                raise InputError(f"{item.name}: {error.strerror or error}; give a file that can be read") from None
        row = np.full((1, self.first + self.last), self.pad, np.int32)
        row[0, : len(beginning)] = _numbers(beginning)
        row[0, self.first + self.last - len(end) :] = _numbers(end)
        name = self.fills["bytes"]
        return one_call({name: row.astype(inputs[name].dtype)})

    def _ends(self, file: BinaryIO) -> tuple[bytes, bytes]:
        beginning = file.read(self.block)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - self.block))
        end = file.read(self.block)
        if self.strip:
            beginning, end = beginning.lstrip(), end.rstrip()
        return beginning[: self.first], end[max(0, len(end) - self.last) :]


def _numbers(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


def read(fields: Fields, sources: Sources) -> InputStep:
    """Read a step of this kind."""
    step = BytesStep(
        where=fields.where,
        fills=fields.names("fills", ["bytes"]),
        first=fields.integer("first", 0, FILE_BYTES_MAX),
        last=fields.integer("last", 0, FILE_BYTES_MAX, 0),
        block=fields.integer("block", 1, FILE_BYTES_MAX),
        strip=fields.flag("strip", False),
        pad=fields.integer("pad", 0, _PAD_MOST, 0),
    )
    if step.block < max(step.first, step.last, 1) or step.first + step.last == 0:
        raise FormatError(fields.where, "'block' is shorter than what is taken of it, or nothing is taken")
    return step
