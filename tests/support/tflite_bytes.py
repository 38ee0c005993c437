"""TFLite models as bytes, laid out by the rules of flatbuffers, with the place of each field, so that any can be wrong.

Tables follow what refers to them, each behind its vtable; no library is asked.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WEIGHT = (0.5, -1.0, 2.0, 0.25, 8.0, -0.125, 1.5, 3.0, -2.0, 0.75, 5.0, -4.0, 1.0, 7.0, -0.5, 6.0)
"""Values of the weight: 64 bytes, so that they leave the model."""


@dataclass(frozen=True)
class Scalar:
    """A field in its table."""

    code: str
    value: float


@dataclass(frozen=True)
class Numbers:
    """A vector of numbers."""

    code: str
    values: Sequence[float]
    align: int = 4


@dataclass(frozen=True)
class Tables:
    """A vector of tables."""

    tables: Sequence[Mapping[int, Any]]


@dataclass
class Writer:
    """Bytes, and where the fields are that have a name."""

    data: bytearray = field(default_factory=bytearray)
    at: dict[str, int] = field(default_factory=dict)

    def align(self, size: int, ahead: int = 0) -> None:
        self.data += bytes(-(len(self.data) + ahead) % size)

    def refer(self, place: int) -> None:
        """Let the offset at `place` refer to what follows."""
        struct.pack_into("<I", self.data, place, len(self.data) - place)

    def table(self, name: str, fields: Mapping[int, Any], place: int) -> None:
        """Write a table that the offset at `place` refers to, and all in it."""
        count = max(fields, default=-1) + 1
        self.align(4, 4 + 2 * count)
        vtable, size, places = len(self.data), 4, {}
        for number, value in sorted(fields.items(), key=lambda item: -_width(item[1])):
            size += -size % _width(value)
            places[number] = size
            size += _width(value)
        self.at[f"{name} vtable"] = vtable
        self.data += struct.pack("<HH", 4 + 2 * count, size)
        self.data += b"".join(struct.pack("<H", places.get(number, 0)) for number in range(count))
        start = len(self.data)
        self.at[name] = start
        self.refer(place)
        self.data += struct.pack("<i", start - vtable) + bytes(size - 4)
        for number, value in fields.items():
            here = start + places[number]
            self.at[f"{name}.{number}"] = here
            if isinstance(value, Scalar):
                struct.pack_into(f"<{value.code}", self.data, here, value.value)
        for number, value in fields.items():
            if not isinstance(value, Scalar):
                self.value(f"{name}.{number}", value, start + places[number])

    def value(self, name: str, value: Any, place: int) -> None:
        if isinstance(value, Mapping):
            self.table(name, value, place)
            return
        if isinstance(value, str):
            self.align(4)
            self.refer(place)
            self.at[f"{name} data"] = len(self.data)
            self.data += struct.pack("<I", len(value.encode())) + value.encode() + b"\0"
        elif isinstance(value, Numbers):
            width = max(value.align, struct.calcsize(f"<{value.code}"))
            self.align(width, 4)
            self.refer(place)
            self.at[f"{name} data"] = len(self.data)
            self.data += struct.pack(f"<I{len(value.values)}{value.code}", len(value.values), *value.values)
        else:
            self.align(4)
            self.refer(place)
            first = len(self.data) + 4
            self.at[f"{name} data"] = len(self.data)
            self.data += struct.pack("<I", len(value.tables)) + bytes(4 * len(value.tables))
            for index, table in enumerate(value.tables):
                self.table(f"{name}[{index}]", table, first + 4 * index)


def _width(value: Any) -> int:
    return struct.calcsize(f"<{value.code}") if isinstance(value, Scalar) else 4


def numbers(values: Sequence[int]) -> Numbers:
    """Return a vector of int32."""
    return Numbers("i", values)


def tensor(
    shape: Sequence[int], buffer: int, name: str, kind: int = 0, more: Mapping[int, Any] | None = None
) -> dict[int, Any]:
    """Return a Tensor."""
    return {0: numbers(shape), 1: Scalar("b", kind), 2: Scalar("I", buffer), 3: name, **(more or {})}


def operator(code: int, inputs: Sequence[int], outputs: Sequence[int]) -> dict[int, Any]:
    """Return an Operator."""
    return {0: Scalar("I", code), 1: numbers(inputs), 2: numbers(outputs)}


def code(builtin: int, custom: str | None = None) -> dict[int, Any]:
    """Return an OperatorCode."""
    fields: dict[int, Any] = {0: Scalar("b", min(builtin, 127)), 3: Scalar("i", builtin)}
    return fields if custom is None else {**fields, 1: custom}


def buffer(data: bytes = b"") -> dict[int, Any]:
    """Return a Buffer."""
    return {0: Numbers("B", list(data), 16)} if data else {}


def subgraph(
    tensors: Sequence[Mapping[int, Any]],
    inputs: Sequence[int],
    outputs: Sequence[int],
    operators: Sequence[Mapping[int, Any]],
) -> dict[int, Any]:
    """Return a SubGraph."""
    return {0: Tables(tensors), 1: numbers(inputs), 2: numbers(outputs), 3: Tables(operators)}


def model_fields(**changed: Any) -> dict[int, Any]:
    """Return the fields of a model: y = x + weight, each of sixteen float32.

    Args:
        changed: parts in place of its own: `codes`, `tensors`, `operators`, `buffers`, `subgraphs`, `more`.
    """
    tensors = changed.get("tensors") or [tensor([16], 0, "x"), tensor([16], 1, "weight"), tensor([16], 0, "y")]
    operators = changed.get("operators") or [operator(0, [0, 1], [2])]
    return {
        0: Scalar("I", 3),
        1: Tables(changed.get("codes") or [code(0)]),
        2: Tables(changed.get("subgraphs") or [subgraph(tensors, [0], [2], operators)]),
        3: "by hand",
        4: Tables(changed.get("buffers") or [buffer(), buffer(struct.pack("<16f", *WEIGHT))]),
        **changed.get("more", {}),
    }


def write(fields: Mapping[int, Any]) -> Writer:
    """Write a whole file of a Model."""
    writer = Writer(bytearray(b"\0\0\0\0TFL3"))
    writer.table("Model", fields, 0)
    writer.align(4)
    return writer


def model(**changed: Any) -> bytes:
    """Return the bytes of `model_fields`."""
    return bytes(write(model_fields(**changed)).data)


def cut(data: bytes, ranges: Sequence[tuple[int, int]], numbers: Sequence[int] | None = None) -> bytes:
    """Return the skeleton of a file without these ranges (SPEC.md, "TFLite skeleton").

    Args:
        data: the whole file.
        ranges: offset and size of each, in the order of the file.
        numbers: number of the hole of each; None for their order.
    """
    gaps, kept, end = [], b"", 0
    for offset, size in ranges:
        gaps.append(offset - end)
        kept += data[end:offset]
        end = offset + size
    chosen = list(range(len(ranges))) if numbers is None else numbers
    front = struct.pack(f"<I{len(gaps)}I{len(chosen)}H", len(ranges), *gaps, *chosen)
    return front + kept + data[end:]


def weight_range(writer: Writer, number: int = 1) -> tuple[int, int]:
    """Return where the data of a buffer are."""
    place = writer.at[f"Model.4[{number}].0 data"]
    return place + 4, int.from_bytes(writer.data[place : place + 4], "little")
