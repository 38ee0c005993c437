"""The walk over the bytes of ONNX's protobuf: field by field, by the tables of onnx_schema.py.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.skeletons import onnx_schema as schema
from seed_runtime.skeletons.info import refuse
from seed_runtime.skeletons.onnx_runs import RUNS
from seed_runtime.skeletons.onnx_tensors import count_varints

Fields = dict[str, Any]
"""A message's fields: a number, a text, a count of bytes, what the handler made of a message; a list of
these; or how many there are, where the schema asks for no list."""
Handler = Callable[[Fields], Any]


_RUN: Final = "run"
"""Kind of what stands for further fields of the same number."""
_COUNTED: Final = frozenset((kind, schema.MANY) for kind in RUNS)
"""Kind and number of fields whose runs are counted together."""


class Walker:
    """Checks messages of ONNX's protobuf; `handlers` make something of the fields of some kinds."""

    def __init__(self, data: memoryview, handlers: Mapping[str, Handler]) -> None:
        self._data, self._handlers, self.noted = data, handlers, set[str]()
        self._shares_left = schema.FIELDS_MAX * schema.RUN_SHARE
        """Fields that may still come, in sixteenths."""

    def message(self, kind: str, start: int, end: int, depth: int) -> Any:
        """Check one message and all in it; return what its handler makes of the fields, else None."""
        if depth > schema.DEPTH_MAX:
            raise LimitError("skeleton: messages in messages", depth, schema.DEPTH_MAX)
        fields: Fields = {}
        for name, field_kind, most, a, b in self.split(kind, start, end):
            value: Any
            if field_kind in schema.MESSAGES:
                value = self.message(field_kind, a, b, depth + 1)
            elif field_kind in schema.TEXT_LIMITS:
                value = self._text(a, b, f"{kind}.{name}", schema.TEXT_LIMITS[field_kind])
            elif field_kind == schema.BYTES:
                value = b - a
            elif field_kind == schema.VARINTS:
                value = count_varints(self._data[a:b], f"{kind}.{name}")
            else:
                value = a
            if field_kind == _RUN:
                fields[name] += a
            elif most == schema.ONE:
                if name in fields:
                    refuse(f"{kind}.{name} is given twice")
                fields[name] = value
            elif most:
                values = fields.setdefault(name, [])
                if len(values) == most:
                    raise LimitError(f"skeleton: number of {kind}.{name}", most + 1, most)
                values.append(value)
            else:
                fields[name] = fields.get(name, 0) + 1
        self.noted |= {fields.get("op_type", "")} & schema.OPERATORS_NOTED if kind == "Node" else set()
        handler = self._handlers.get(kind)
        return handler(fields) if handler else None

    def split(self, kind: str, pos: int, end: int) -> Iterator[tuple[str, str, int, int, int]]:
        """Yield each field as name, kind, how many, and its number or where its bytes start and end.

        Of a run of fields that are only counted, the others are yielded together, as the number of them.
        """
        known = schema.MESSAGES[kind]
        name, field_kind, most = "", "", schema.ONE
        run, before = 0, -1
        while pos < end:
            if run >= schema.RUN_MIN and (field_kind, most) in _COUNTED:
                count, pos = RUNS[field_kind](self._data, pos, end, before)
                self._spend(count)
                yield name, _RUN, most, count, 0
                if pos == end:
                    break
            tag, pos = self._varint(pos, end, kind)
            run, before = (run + 1, tag) if tag == before else (1, tag)
            entry = known.get(tag >> 3)
            is_cheap = run > schema.RUN_MIN and entry is not None and entry[1:] in _COUNTED
            self._spend(1 if is_cheap else schema.RUN_SHARE)
            if entry is None:
                refuse(f"{kind} has field {tag >> 3}, which no skeleton holds")
            name, field_kind, most = entry
            if tag & 7 != schema.WIRE.get(field_kind, 2):
                refuse(f"{kind}.{name} has wire type {tag & 7}")
            if tag & 7 == 0:
                value, pos = self._varint(pos, end, f"{kind}.{name}")
                if value >= 1 << 63:
                    value -= 1 << 64
                if field_kind == schema.INT32 and not 0 <= value < 1 << 31:
                    refuse(f"{kind}.{name} is {value}")
                yield name, field_kind, most, value, 0
                continue
            if tag & 7 == 2:
                size, pos = self._varint(pos, end, f"{kind}.{name}")
            else:
                size = 4
            if size > end - pos:
                refuse(f"{kind}.{name} ends {size - (end - pos):,} bytes past the end")
            yield name, field_kind, most, pos, pos + size
            pos += size

    def _spend(self, shares: int) -> None:
        self._shares_left -= shares
        if self._shares_left < 0:
            raise LimitError("skeleton: fields", schema.FIELDS_MAX + 1, schema.FIELDS_MAX)

    def _varint(self, pos: int, end: int, where: str) -> tuple[int, int]:
        """Read an unsigned number in its shortest form, below 2**64; return it and the place after it."""
        value = shift = 0
        while pos < end:
            byte = self._data[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (shift and not byte) or value >= 1 << 64:
                    refuse(f"a number in {where} is not in its shortest form")
                return value, pos
            shift += 7
            if shift > 63:
                refuse(f"a number in {where} has more than 64 bits")
        raise FormatError("skeleton", f"{where} ends within a number")

    def _text(self, start: int, end: int, where: str, most: int) -> str:
        if end - start > most:
            raise LimitError(f"skeleton: length of {where}", end - start, most)
        try:
            return str(self._data[start:end], "utf-8")
        except UnicodeDecodeError:
            refuse(f"{where} is not UTF-8")
