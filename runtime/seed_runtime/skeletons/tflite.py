"""TFLite skeletons: a strict check of a flatbuffer, before LiteRT reads it.

LiteRT follows what a model says without a check of its own where Python opens it. So every offset is checked
(flatbuffer.py), and what the numbers say of each other here: indices of operators, tensors, buffers and subgraphs,
sizes of constants, order of operators, tables of sparse tensors. Kernels trust their options, and values of constants
such as the indices of a Gather, beyond that (SECURITY.md).

Source: schema.fbs of LiteRT 2.3, and its interpreter_builder.cc for what it takes from where.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import BY_NAME, STRING, DType
from seed_runtime.format.parts import tflite_skeleton
from seed_runtime.format.primitives import printable
from seed_runtime.limits import RANK_MAX, STRING_MAX
from seed_runtime.skeletons import tflite_schema as schema
from seed_runtime.skeletons.cut_file import CutFile, Range
from seed_runtime.skeletons.flatbuffer import Table, Vector, Walker
from seed_runtime.skeletons.info import ExternalTensor, SkeletonInfo, ValueInfo, refuse
from seed_runtime.skeletons.tflite_tensors import Tensors, TensorTable

MODEL_FILE: Final = tflite_skeleton.MODEL_FILE
CUSTOM: Final = schema.OPERATORS.index("CUSTOM")
_REFUSED: Final = frozenset({"DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"})
"""Operators that no file holds."""
_SUBGRAPHS_MAX: Final = 1024
"""Largest number of subgraphs."""
_SIGNATURE: Final = "serving_default"
"""Key of the signature whose names inputs and outputs have, where there are several."""
_NESTED_MAX: Final = 32
"""Largest depth of subgraphs that call each other."""


def scan(data: bytes | memoryview | mmap.mmap) -> SkeletonInfo:
    """Check a skeleton, and return what it leaves out, takes and gives.

    Memory: a few objects for each table; no part of `data` is copied.

    Raises:
        FormatError: the bytes are no model that LiteRT can be given.
        UnsupportedError: the model is newer than this runtime, or has data outside of its file.
    """
    return _Model(CutFile(memoryview(data).cast("B"))).info()


def scan_file(data: bytes | memoryview | mmap.mmap) -> SkeletonInfo:
    """Check a whole model, of which nothing was left out, as `scan` does."""
    return _Model(CutFile.whole(memoryview(data).cast("B"))).info()


@dataclass(frozen=True)
class BufferPlace:
    """A buffer of constant data in a whole model.

    Attributes:
        number: of the buffer.
        place: its data.
        name: of the first tensor that uses it; "" where it is none's.
        dtype: of its elements, bytes where no seed carries the tensor's.
        dims: of the tensor, or the number of elements of a sparse one and of bytes.
        is_used: whether a tensor uses it.
    """

    number: int
    place: Range
    name: str
    dtype: DType
    dims: tuple[int, ...]
    is_used: bool


def buffers(data: bytes | memoryview | mmap.mmap) -> list[BufferPlace]:
    """Check a whole model, and return its buffers that hold data, in the order of the file."""
    return _Model(CutFile.whole(memoryview(data).cast("B"))).buffers()


class _Model:
    def __init__(self, file: CutFile) -> None:
        self._file = file
        self._walker = Walker(
            file,
            schema.TABLES,
            schema.UNIONS,
            {"Operator": _operator, "Buffer": _buffer},
        )
        model: Table = self._walker.root("Model", schema.IDENTIFIER, "TFLite model")
        if model.get("version") != schema.VERSION:
            raise UnsupportedError(
                f"this model is of version {model.get('version', 0)} of its schema, and {schema.VERSION} is known; "
                f"convert it again"
            )
        if model.get("external_buffers") or model.get("external_buffer_groups"):
            _refuse_outside()
        self._buffers: list[Vector | None] = model.get("buffers", [])
        if len(self._walker.used) < len(file.ranges):
            refuse("one of its ranges isn't the data of a buffer")
        if any(count > 1 for count in self._walker.used.values()):
            refuse("two buffers share a range")
        self._codes, self._custom = self._operators(model.get("operator_codes", []))
        subgraphs: list[Table] = model.get("subgraphs", [])
        if not 0 < len(subgraphs) <= _SUBGRAPHS_MAX:
            refuse(f"it has {len(subgraphs):,} subgraphs")
        table = TensorTable(self._walker, self._buffers)
        self._tensors = [table.check(index, each.get("tensors", [])) for index, each in enumerate(subgraphs)]
        self._ends = [self._check_subgraph(each, own) for each, own in zip(subgraphs, self._tensors, strict=True)]
        self._check_calls(subgraphs)
        for each in model.get("metadata", []):
            self._in_range(each.get("buffer", 0), self._buffers, "buffer of metadata")
        if "metadata_buffer" in model:
            numbers = self._walker.numbers(model["metadata_buffer"], "Model.metadata_buffer")
            self._check_numbers(numbers, len(self._buffers), "buffers of metadata")
        self._end_names = self._names(model.get("signature_defs", []))
        self._first_uses = table.first_uses

    def info(self) -> SkeletonInfo:
        """Return what the model says of itself."""
        inputs, outputs = self._ends[0]
        by_offset = {place.place.offset: place for place in self.buffers()}
        tensors = []
        for place in self._file.ranges:
            found = by_offset[place.offset]
            tensors.append(ExternalTensor(found.name, found.dtype, found.dims, place.offset, place.size))
        return SkeletonInfo(
            schema.VERSION,
            {},
            self._values(inputs, self._end_names["inputs"], "input"),
            self._values(outputs, self._end_names["outputs"], "output"),
            tuple(tensors),
            custom_operators=self._custom,
        )

    def buffers(self) -> list[BufferPlace]:
        """Return the buffers that hold data, in the order of the file."""
        found = []
        for number, data in enumerate(self._buffers):
            if data is None or not data.length:
                continue
            name, dtype, dims = self._first_uses.get(number, (f"buffer {number}", _BYTES, (data.length,)))
            if dtype.size(_product(dims)) != data.length or len(dims) > RANK_MAX:
                dtype, dims = _BYTES, (data.length,)
            is_used = number in self._first_uses
            found.append(BufferPlace(number, Range(data.offset, data.length), name, dtype, dims, is_used))
        return sorted(found, key=lambda each: each.place.offset)

    def _operators(self, codes: Sequence[Table]) -> tuple[list[int], tuple[str, ...]]:
        """Return the operators by their number, and the names of custom ones."""
        numbers, custom = [], []
        for each in codes:
            # An older field for the first 127 of them; a reader takes the larger one.
            number = max(each.get("deprecated_builtin_code", 0), each.get("builtin_code", 0))
            if number >= len(schema.OPERATORS):
                raise UnsupportedError(
                    f"this model has operator {number}, which this runtime doesn't know; update seed-runtime"
                )
            if number < 0 or schema.OPERATORS[number] in _REFUSED:
                refuse(f"it has operator {number}, which no file holds")
            if number == CUSTOM:
                name = self._walker.text(each.get("custom_code"), "OperatorCode.custom_code", STRING_MAX)
                custom.append(name if name and printable(name) else "without a name")
            numbers.append(number)
        return numbers, tuple(dict.fromkeys(custom))

    def _check_subgraph(self, subgraph: Table, tensors: Tensors) -> tuple[list[int], list[int]]:
        """Check one subgraph; return its inputs and outputs."""
        count = len(tensors.dtypes)
        inputs = self._numbers_of(subgraph.get("inputs"), count, "inputs of a subgraph")
        outputs = self._numbers_of(subgraph.get("outputs"), count, "outputs of a subgraph")
        known = bytearray(tensors.known)
        for number in inputs:
            if tensors.known[number]:
                refuse("an input of a subgraph has constant data")
            known[number] = 1
        for each in subgraph.get("operators", []):
            index, vectors, _ = each
            self._in_range(index, self._codes, "operator")
            for name, vector in vectors:
                numbers = self._numbers_of(vector, count, f"{name} of an operator", least=-1)
                if name == "outputs":
                    if any(number < 0 or tensors.constant[number] for number in numbers):
                        refuse("an operator writes into constant data, or to no tensor")
                    for number in numbers:
                        known[number] = 1
                elif name == "inputs" and not all(number < 0 or known[number] for number in numbers):
                    refuse("an operator reads a tensor that nothing before it makes")
        if not all(known[number] for number in outputs):
            refuse("an output of a subgraph is made by nothing")
        return inputs, outputs

    def _check_calls(self, subgraphs: Sequence[Table]) -> None:
        """Refuse subgraphs that call themselves, or are called too deeply."""
        called: list[set[int]] = []
        for each in subgraphs:
            own: set[int] = set()
            for _, _, references in each.get("operators", []):
                for value in references:
                    own |= set(self._subgraph_numbers(value))
            self._check_numbers(own, len(subgraphs), "subgraphs that are called")
            called.append(own)
        depths: dict[int, int] = {}
        remaining = set(range(len(subgraphs)))
        # Those that call none come first; each round is one level of calls.
        for depth in range(_NESTED_MAX):
            ready = [number for number in remaining if called[number].isdisjoint(remaining)]
            depths |= dict.fromkeys(ready, depth)
            remaining -= set(ready)
            if not ready:
                break
        if remaining:
            refuse("its subgraphs call themselves, or each other too deeply")

    def _subgraph_numbers(self, value: Any) -> Iterable[int]:
        numbers = self._walker.numbers(value, "subgraphs").tolist() if isinstance(value, Vector) else [value]
        return (number for number in numbers if number != -1)  # which stands for none

    def _names(self, found: Sequence[Table]) -> dict[str, dict[int, str]]:
        """Return names of the inputs and outputs of subgraph 0 that a signature gives; none where there is none."""
        chosen: dict[str, dict[int, str]] = {"inputs": {}, "outputs": {}}
        is_default = False
        for each in found:
            number = each.get("subgraph_index", 0)
            self._in_range(number, self._tensors, "subgraph of a signature")
            names = {side: self._mapped(each.get(side, []), number) for side in chosen}
            key = self._walker.text(each.get("signature_key"), "SignatureDef.signature_key", STRING_MAX)
            if number == 0 and not is_default and (key == _SIGNATURE or not any(chosen.values())):
                chosen, is_default = names, key == _SIGNATURE
        return chosen

    def _mapped(self, maps: Sequence[Table], subgraph: int) -> dict[int, str]:
        found = {}
        for each in maps:
            number = each.get("tensor_index", 0)
            self._in_range(number, self._tensors[subgraph].dtypes, "tensor of a signature")
            found[number] = self._walker.text(each.get("name"), "TensorMap.name", STRING_MAX + 1)
        return found

    def _values(self, numbers: Sequence[int], given: dict[int, str], word: str) -> tuple[ValueInfo, ...]:
        """Describe inputs or outputs of subgraph 0; those whose names can't be used are numbered."""
        tensors = self._tensors[0]
        names = (
            [given[number] for number in numbers] if given.keys() >= set(numbers) else list(map(tensors.name, numbers))
        )
        usable = len(set(names)) == len(names) and all(
            name and printable(name) and len(name.encode()) <= STRING_MAX for name in names
        )
        return tuple(
            ValueInfo(
                name if usable else f"{word}_{index}",
                STRING.code if tensors.dtypes[number] == "string" else _code(tensors.dtypes[number]),
                tensors.dims(number),
            )
            for index, (name, number) in enumerate(zip(names, numbers, strict=True))
        )

    def _numbers_of(self, vector: Vector | None, end: int, what: str, least: int = 0) -> list[int]:
        if vector is None:
            return []
        numbers: list[int] = self._walker.numbers(vector, what).tolist()
        self._check_numbers(numbers, end, what, least)
        self._walker.spend(len(numbers))
        return numbers

    def _check_numbers(self, numbers: Iterable[int], end: int, what: str, least: int = 0) -> None:
        if any(not least <= number < end for number in numbers):
            refuse(f"{what}: a number is out of range")

    def _in_range(self, number: int, items: Sequence[Any], what: str) -> None:
        if number >= len(items):
            refuse(f"{what} {number:,} is out of range, there are {len(items):,}")


_BYTES: Final = BY_NAME["uint8"]


def _product(dims: Sequence[int]) -> int:
    count = 1
    for size in dims:
        count *= size
    return count


def _code(name: str) -> int | None:
    return BY_NAME[name].code if name in BY_NAME else None


def _operator(fields: Table) -> tuple[int, list[tuple[str, Vector]], list[Any]]:
    """Return an operator's number, its lists of tensors, and the subgraphs that it calls."""
    if fields.get("large_custom_options_size") or fields.get("large_custom_options_offset"):
        _refuse_outside()
    lists: list[tuple[str, Vector]] = [
        (name, fields[name]) for name in ("inputs", "intermediates", "outputs") if name in fields
    ]
    options = {**fields.get("builtin_options", {}), **fields.get("builtin_options2", {})}
    called = [value for name, value in options.items() if name.startswith(schema.SUBGRAPH)]
    return fields.get("opcode_index", 0), lists, called


def _buffer(fields: Table) -> Vector | None:
    """Return a buffer's data."""
    # 0 and 1 stand for none. Models of more than 2 GB have it behind the flatbuffer.
    if fields.get("offset", 0) > 1 or fields.get("size", 0) > 1:
        _refuse_outside()
    return fields.get("data")


def _refuse_outside() -> None:
    raise UnsupportedError(
        "this model has data outside of its flatbuffer, as models of more than 2 GB have; no seed carries them"
    )
