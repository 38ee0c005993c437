"""The walk over a flatbuffer: tables, vectors and texts by the tables of tflite_schema.py, every offset checked.

A flatbuffer is followed by offsets that its reader trusts: one that lies makes LiteRT, which doesn't verify a file that
Python gives it, read anywhere in the process. What is checked here is what a verifier checks: that a table, its vtable,
each of its fields and each vector lie within the file, aligned, and that the field is known and of the type that a
reader takes it for. Vectors and tables may be shared, so that a small file can ask for any amount of work: FIELDS_MAX
bounds it.

Source: flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from seed_runtime.errors import LimitError, UnsupportedError
from seed_runtime.skeletons.cut_file import CutFile
from seed_runtime.skeletons.info import refuse

FIELDS_MAX: Final = 1 << 20
"""Largest number of fields, tables and texts together: seconds on a small device. A graph of 10,000 nodes has some
200,000."""
DEPTH_MAX: Final = 16
"""Largest depth of tables in tables; a model's own reach 6."""
ELEMENTS_A_FIELD: Final = 1024
"""Number of elements of a vector that count as a field."""

SCALARS: Final[Mapping[str, tuple[str, int]]] = {
    **{code: (f"<{code}", struct.calcsize(f"<{code}")) for code in "?bBhHiIqQf"},
    "g": ("<i", 4),
    "G": ("<I", 4),
}
"""Formats and sizes [B] of scalars, by their letter in the schema."""

Table = dict[str, Any]
"""A table's fields that are there: a number, a `Vector`, a `Text`, a table, a list of tables, or what a handler made of
a table."""
Handler = Callable[[Table], Any]
Schema = Mapping[str, tuple[tuple[str, str], ...]]
"""Name and kind of each field of each table, in the order of their numbers."""


class Vector(NamedTuple):
    """A vector of scalars: the letter of their type, where they begin in the file, and how many there are."""

    code: str
    offset: int
    length: int


class Text(NamedTuple):
    """A text: where it begins in the file, and its size [B]."""

    offset: int
    size: int


class Walker:
    """Checks the tables of a flatbuffer; `handlers` make something of some kinds of tables."""

    def __init__(
        self,
        file: CutFile,
        schema: Schema,
        unions: Mapping[str, Mapping[int, str]],
        handlers: Mapping[str, Handler],
    ) -> None:
        """Prepare to walk.

        Args:
            file: the flatbuffer.
            schema: its tables.
            unions: for each union the table of each number of its type.
            handlers: by the name of a table.
        """
        self._file, self._schema, self._unions, self._handlers = file, schema, unions, handlers
        self._left = FIELDS_MAX
        self._range_at = {place.offset: place for place in file.ranges}
        self._layouts: dict[tuple[int, str], tuple[int, list[tuple[str, str, int]]]] = {}
        self.used: dict[int, int] = {}
        """How often the vector before each range was met, by the range's offset."""

    def root(self, kind: str, identifier: bytes, title: str) -> Any:
        """Check the whole flatbuffer, whose root is a table of this kind; `title` says in messages what it is."""
        head = self._file.read(0, 8, "its head")
        if head[4:] != identifier:
            refuse(f"it is no {title}: bytes 4 to 7 aren't {identifier.decode()}")
        return self._table(kind, self._reference(0, kind), 0)

    def numbers(self, vector: Vector, what: str) -> npt.NDArray[Any]:
        """Return a vector's numbers, which must have been kept."""
        form, size = SCALARS[vector.code]
        self.spend(1 + vector.length // ELEMENTS_A_FIELD)
        return np.frombuffer(self._file.read(vector.offset, vector.length * size, what), form)

    def text(self, text: Text | None, what: str, most: int) -> str:
        """Return a text, without what is beyond `most` bytes; what isn't UTF-8 is replaced."""
        if text is None:
            return ""
        self.spend(1 + text.size // ELEMENTS_A_FIELD)
        return str(self._file.read(text.offset, min(text.size, most), what), "utf-8", "replace")

    def spend(self, fields: int) -> None:
        """Count work.

        Raises:
            LimitError: there is too much of it.
        """
        self._left -= fields
        if self._left < 0:
            raise LimitError("skeleton: fields", FIELDS_MAX + 1, FIELDS_MAX)

    def _table(self, kind: str, offset: int, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise LimitError("skeleton: tables in tables", depth, DEPTH_MAX)
        self.spend(1)
        size, layout = self._layout(kind, offset)
        whole = self._file.read(offset, size, f"a table {kind}")
        fields: Table = {}
        self.spend(len(layout))
        for name, code, place in layout:
            where = f"{kind}.{name}"
            if code in SCALARS:
                form, width = SCALARS[code]
                if (offset + place) % width:
                    refuse(f"{where} isn't aligned")
                fields[name] = struct.unpack_from(form, whole, place)[0]
            elif code in self._unions:
                # The number of its type stands in a field of its own, the one before.
                fields[name] = (code, offset + place)
            else:
                fields[name] = self._referred(code, self._reference(offset + place, where), depth + 1, where)
        for name, value in fields.items():
            if isinstance(value, tuple) and type(value) is tuple:
                fields[name] = self._union(kind, name, value, fields, depth)
        handler = self._handlers.get(kind)
        return handler(fields) if handler else fields

    def _layout(self, kind: str, offset: int) -> tuple[int, list[tuple[str, str, int]]]:
        """Return a table's size and its fields: name, kind and place in it."""
        if offset % 4:
            refuse(f"a table {kind} isn't aligned")
        back = int.from_bytes(self._file.read(offset, 4, f"a table {kind}"), "little", signed=True)
        vtable = offset - back
        known = self._layouts.get((vtable, kind))
        if known is None:
            known = self._layouts[vtable, kind] = self._vtable(kind, vtable)
        return known

    def _vtable(self, kind: str, vtable: int) -> tuple[int, list[tuple[str, str, int]]]:
        where = f"the vtable of a table {kind}"
        if vtable % 2:
            refuse(f"{where} isn't aligned")
        own, size = struct.unpack("<HH", self._file.read(vtable, 4, where))
        if own < 4 or own % 2 or size < 4:
            refuse(f"{where} has {own} bytes, for a table of {size}")
        schema, layout = self._schema[kind], []
        self.spend(own // 2)
        for number, (place,) in enumerate(struct.iter_unpack("<H", self._file.read(vtable + 4, own - 4, where))):
            if not place:
                continue
            if number >= len(schema):
                raise UnsupportedError(
                    f"this model has field {number} in a table {kind}, which this runtime doesn't know; "
                    f"update seed-runtime"
                )
            name, code = schema[number]
            width = SCALARS[code][1] if code in SCALARS else 4
            if place < 4 or place + width > size:
                refuse(f"{kind}.{name} lies outside of its table")
            layout.append((name, code, place))
        return size, layout

    def _reference(self, offset: int, where: str) -> int:
        """Return the place that an offset in the file refers to."""
        if offset % 4:
            refuse(f"the offset of {where} isn't aligned")
        forward = int.from_bytes(self._file.read(offset, 4, where), "little")
        if not forward:
            refuse(f"the offset of {where} is 0")
        return offset + forward

    def _referred(self, code: str, offset: int, depth: int, where: str) -> Any:
        if code == "s":
            return self._text_at(offset, where)
        if not code.startswith("["):
            return self._table(code, offset, depth)
        inner = code[1:]
        if offset % 4:
            refuse(f"{where} isn't aligned")
        count = int.from_bytes(self._file.read(offset, 4, where), "little")
        begin = offset + 4
        if inner in SCALARS:
            width = SCALARS[inner][1]
            if begin % width:
                refuse(f"{where} isn't aligned")
            if (left_out := self._range_at.get(begin)) is not None:
                # Only what a buffer holds may be left out; its size is the number that was read just now.
                if where != "Buffer.data":
                    refuse(f"a range lies in {where}")
                self.used[begin] = self.used.get(begin, 0) + 1
                return Vector(inner, begin, left_out.size)
            self._file.read(begin, count * width, where)
            return Vector(inner, begin, count)
        self._file.read(begin, 4 * count, where)
        self.spend(count)
        return [self._element(inner, begin + 4 * index, depth, where) for index in range(count)]

    def _element(self, kind: str, offset: int, depth: int, where: str) -> Any:
        place = self._reference(offset, where)
        return self._text_at(place, where) if kind == "s" else self._table(kind, place, depth)

    def _text_at(self, offset: int, where: str) -> Text:
        if offset % 4:
            refuse(f"{where} isn't aligned")
        size = int.from_bytes(self._file.read(offset, 4, where), "little")
        # A reader takes it for a text that ends with a zero.
        if self._file.read(offset + 4, size + 1, where)[-1]:
            refuse(f"{where} has no end")
        return Text(offset + 4, size)

    def _union(self, kind: str, name: str, value: tuple[str, int], fields: Table, depth: int) -> Any:
        union, offset = value
        number = fields.get(f"{name}_type", 0)
        if not number:
            refuse(f"{kind}.{name} has no type")
        inner = self._unions[union].get(number)
        if inner is None:
            raise UnsupportedError(
                f"this model has type {number} in {kind}.{name}, which this runtime doesn't know; update seed-runtime"
            )
        where = f"{kind}.{name}"
        return self._table(inner, self._reference(offset, where), depth + 1)
