"""ONNX skeletons: a strict walk over ONNX's protobuf, before ONNX Runtime reads it.

A skeleton is hostile until proven. What could make ONNX Runtime open another file, load code or allocate memory by a
false size is refused: data outside `model.weights`, compiled contexts, operators of other domains. Protobuf parsers
repair what is ambiguous, and not all alike: the last of two values wins, two messages merge, unknown fields are
skipped, a number may be padded. Our exporter writes none of that, so all of it is refused: a check that ONNX Runtime's
parser could disagree with would check nothing.

Source: protobuf.dev/programming-guides/encoding for the wire format; onnx_schema.py for the fields.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from seed_runtime.errors import FormatError, LimitError, UnsupportedError
from seed_runtime.format.dtypes import BY_CODE
from seed_runtime.format.parts import onnx_skeleton
from seed_runtime.format.primitives import printable
from seed_runtime.format.sections.holes import ALIGNMENT
from seed_runtime.limits import METADATA_MAX, PART_RAW_MAX, RANK_MAX, WEIGHTS_MAX
from seed_runtime.skeletons import metadata
from seed_runtime.skeletons import onnx_schema as schema
from seed_runtime.skeletons.info import ExternalTensor, Form, SkeletonInfo, ValueInfo, refuse
from seed_runtime.skeletons.onnx_runs import RUNS
from seed_runtime.skeletons.onnx_tensors import check_inline, count_varints

MODEL_FILE: Final = onnx_skeleton.MODEL_FILE
WEIGHTS_FILE: Final = onnx_skeleton.WEIGHTS_FILE
"""The files of an assembled model; a skeleton may refer to no other one than that of the weights."""


def scan(data: bytes | memoryview | mmap.mmap) -> SkeletonInfo:
    """Check a skeleton, and return what it refers to, takes and gives.

    Memory: the names and dimensions that it returns, and a few objects per level of nesting; no part of
    `data` is copied.

    Raises:
        FormatError: the bytes are no skeleton that our exporter writes.
        UnsupportedError: an operator or domain that a seed may not use.
    """
    with memoryview(data) as view, view.cast("B") as octets:
        if len(octets) > PART_RAW_MAX:
            raise LimitError("skeleton", len(octets), PART_RAW_MAX)
        # A file that begins so is taken for ONNX Runtime's own format when opened from memory.
        if bytes(octets[4:8]) == b"ORTM":
            refuse("it can be read as two formats")
        walker = _Walker(octets)
        info: SkeletonInfo = walker.message("Model", 0, len(octets), 0)
        return replace(info, operators=frozenset(walker.noted))


Fields = dict[str, Any]
"""A message's fields: a number, a text, a count of bytes, what the handler made of a message; a list of
these; or how many there are, where the schema asks for no list."""


_RUN: Final = "run"
"""Kind of what stands for further fields of the same number."""
_COUNTED: Final = frozenset((kind, schema.MANY) for kind in RUNS)
"""Kind and number of fields whose runs are counted together."""


class _Walker:
    def __init__(self, data: memoryview) -> None:
        self.data, self.noted = data, set[str]()
        self.shares_left = schema.FIELDS_MAX * schema.RUN_SHARE
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
                value = self.text(a, b, f"{kind}.{name}", schema.TEXT_LIMITS[field_kind])
            elif field_kind == schema.BYTES:
                value = b - a
            elif field_kind == schema.VARINTS:
                value = count_varints(self.data[a:b], f"{kind}.{name}")
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
        handler = _HANDLERS.get(kind)
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
                count, pos = RUNS[field_kind](self.data, pos, end, before)
                self.spend(count)
                yield name, _RUN, most, count, 0
                if pos == end:
                    break
            tag, pos = self.varint(pos, end, kind)
            run, before = (run + 1, tag) if tag == before else (1, tag)
            entry = known.get(tag >> 3)
            is_cheap = run > schema.RUN_MIN and entry is not None and entry[1:] in _COUNTED
            self.spend(1 if is_cheap else schema.RUN_SHARE)
            if entry is None:
                refuse(f"{kind} has field {tag >> 3}, which no skeleton holds")
            name, field_kind, most = entry
            if tag & 7 != schema.WIRE.get(field_kind, 2):
                refuse(f"{kind}.{name} has wire type {tag & 7}")
            if tag & 7 == 0:
                value, pos = self.varint(pos, end, f"{kind}.{name}")
                if value >= 1 << 63:
                    value -= 1 << 64
                if field_kind == schema.INT32 and not 0 <= value < 1 << 31:
                    refuse(f"{kind}.{name} is {value}")
                yield name, field_kind, most, value, 0
                continue
            if tag & 7 == 2:
                size, pos = self.varint(pos, end, f"{kind}.{name}")
            else:
                size = 4
            if size > end - pos:
                refuse(f"{kind}.{name} ends {size - (end - pos):,} bytes past the end")
            yield name, field_kind, most, pos, pos + size
            pos += size

    def spend(self, shares: int) -> None:
        self.shares_left -= shares
        if self.shares_left < 0:
            raise LimitError("skeleton: fields", schema.FIELDS_MAX + 1, schema.FIELDS_MAX)

    def varint(self, pos: int, end: int, where: str) -> tuple[int, int]:
        """Read an unsigned number in its shortest form, below 2**64; return it and the place after it."""
        value = shift = 0
        while pos < end:
            byte = self.data[pos]
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

    def text(self, start: int, end: int, where: str, most: int) -> str:
        if end - start > most:
            raise LimitError(f"skeleton: length of {where}", end - start, most)
        try:
            return str(self.data[start:end], "utf-8")
        except UnicodeDecodeError:
            refuse(f"{where} is not UTF-8")


def _model(fields: Fields) -> SkeletonInfo:
    opsets: dict[str, int] = {}
    for domain, version in fields.get("opset_import", ()):
        if domain in opsets:
            refuse(f"the opset of domain {domain or 'ai.onnx'!r} is given twice")
        opsets[domain] = version
    if "graph" not in fields or "ir_version" not in fields or not opsets:
        refuse("it has no graph, no version or no opset")
    inputs, optional, outputs, tensors = fields["graph"]
    pairs = _metadata(fields.get("metadata_props", ()))
    return SkeletonInfo(fields["ir_version"], opsets, inputs, outputs, tensors, pairs, optional)


def _metadata(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    if (size := metadata.size_of(pairs)) > METADATA_MAX:
        raise LimitError("skeleton: size of metadata", size, METADATA_MAX)
    for key, value in pairs:
        if (problem := metadata.problem_of(key, value)) is not None:
            refuse(f"metadata {key[:80]!r}: {problem}")
    if len(found := dict(pairs)) < len(pairs):
        refuse("two entries of metadata have the same key")
    return found


def _opset(fields: Fields) -> tuple[str, int]:
    domain = _allowed(fields.get("domain", ""))
    return "" if domain == "ai.onnx" else domain, fields.get("version", 0)


def _allowed(domain: str) -> str:
    if domain not in schema.DOMAINS:
        raise UnsupportedError(
            f"this seed uses operators of the domain {domain!r}, which no device has; "
            f"export the model again with standard operators"
        )
    return domain


@dataclass(frozen=True, slots=True)
class _InlineTensor:
    """A tensor with its data in the model: of the main graph, it may be the default of an input."""

    name: str
    elem_type: int
    dims: tuple[int, ...]


def _main_graph(
    fields: Fields,
) -> tuple[tuple[ValueInfo, ...], tuple[ValueInfo, ...], tuple[ValueInfo, ...], tuple[ExternalTensor, ...]]:
    values, outputs = tuple(fields.get("input", ())), tuple(fields.get("output", ()))
    initializers: list[ExternalTensor | _InlineTensor] = fields.get("initializer", [])
    defaults = {item.name: item for item in initializers if isinstance(item, _InlineTensor)}
    tensors = tuple(item for item in initializers if isinstance(item, ExternalTensor))
    names = [value.name for value in values] + [tensor.name for tensor in tensors]
    # Of two with one name a parser keeps either; an input of a weight's name could replace the weight.
    if len(set(names)) < len(names) or len(defaults) + len(tensors) < len(initializers):
        refuse("two inputs or initializers have the same name")
    if not defaults.keys().isdisjoint(tensor.name for tensor in tensors):
        refuse("two inputs or initializers have the same name")
    inputs = tuple(value for value in values if value.name not in defaults)
    optional = tuple(value for value in values if value.name in defaults)
    for value in optional:
        _check_default(value, defaults[value.name])
    if len({tensor.offset for tensor in tensors}) < len(tensors):
        refuse("two tensors lie at the same offset")
    for named in (*values, *outputs, *initializers):
        if not named.name or not printable(named.name):
            refuse(f"the name of an input, an output or a tensor is empty or can't be printed: {named.name[:80]!r}")
    return inputs, optional, outputs, tensors


def _check_default(value: ValueInfo, default: _InlineTensor) -> None:
    """Refuse the default of an input of another type or shape."""
    dims = default.dims if value.dims is None else value.dims
    fits = len(dims) == len(default.dims) and all(
        want == size or not isinstance(want, int) for want, size in zip(dims, default.dims, strict=True)
    )
    if value.elem_type != default.elem_type or not fits:
        refuse(f"the default of input {value.name[:80]!r} has another type or shape than the input")


def _node(fields: Fields) -> None:
    op = fields.get("op_type", "")
    _allowed(fields.get("domain", ""))
    if op in schema.OPERATORS_REFUSED:
        raise UnsupportedError(
            f"this seed uses the operator {op!r}, which runs code or files from elsewhere; "
            f"export the model again with standard operators"
        )
    attributes: list[str] = fields.get("attribute", [])
    if len(set(attributes)) < len(attributes):
        refuse(f"a node of operator {op[:80]!r} has an attribute twice")


def _attribute(fields: Fields) -> str:
    name = fields.get("name", "")
    if name in schema.ATTRIBUTES_REFUSED:
        raise UnsupportedError(
            f"this seed uses the attribute {name!r}, which names a file or a function elsewhere; "
            f"export the model again with standard operators"
        )
    expected = schema.VALUE_FIELD.get(fields.get("type", 0))
    if expected is None or fields.keys() - {"name", "type", expected}:
        refuse(f"attribute {name!r} has a value that is not of its type")
    return str(name)


def _tensor(fields: Fields) -> str:
    """Check a tensor with its data in the model; return its name."""
    name: str = fields.get("name", "")
    if "external_data" in fields or fields.get("data_location", 0):
        refuse(f"tensor {name!r} lies in a file, which only initializers of the main graph may")
    sizes = {field: fields[field] for field in schema.DATA_FIELDS if field in fields}
    check_inline(name, fields.get("data_type", 0), _count(name, fields), sizes)
    return name


def _weight(fields: Fields) -> ExternalTensor | _InlineTensor:
    """Check an initializer of the main graph; return its place in the weights file, or what is known of a small one."""
    entries: list[tuple[str, str]] = fields.get("external_data", [])
    location = fields.get("data_location", 0)
    if not entries and not location:
        return _InlineTensor(_tensor(fields), fields.get("data_type", 0), tuple(fields.get("dims", ())))
    name: str = fields.get("name", "")
    if location != 1 or any(field in fields for field in schema.DATA_FIELDS):
        refuse(f"tensor {name!r} has data both in the model and in a file")
    # Any further key would be read as well: ONNX Runtime takes prepacked weights from there.
    if sorted(key for key, _ in entries) != ["length", "location", "offset"]:
        refuse(f"tensor {name!r} must have location, offset and length once each and nothing else")
    where = dict(entries)
    if where["location"] != WEIGHTS_FILE:
        refuse(f"tensor {name!r} lies in the file {where['location'][:80]!r} instead of {WEIGHTS_FILE!r}")
    dtype = BY_CODE.get(fields.get("data_type", 0))
    if dtype is None:
        refuse(f"tensor {name!r} has element type {fields.get('data_type', 0)}, which no seed carries")
    dims = tuple(fields.get("dims", ()))
    if len(dims) > RANK_MAX:
        raise LimitError(f"skeleton: axes of tensor {name!r}", len(dims), RANK_MAX)
    size = dtype.size(_count(name, fields))
    offset, length = _decimal(name, where["offset"]), _decimal(name, where["length"])
    if length != size or not size or offset % ALIGNMENT:
        refuse(f"tensor {name!r} of {size:,} bytes has {length:,} bytes at offset {offset:,}")
    return ExternalTensor(name, dtype, dims, offset, size)


def _count(name: str, fields: Fields) -> int:
    dims = fields.get("dims", ())
    # Checked one by one: the product of many dimensions could itself be a number of a million digits.
    if any(not 0 <= size <= WEIGHTS_MAX for size in dims):
        refuse(f"tensor {name!r} has a dimension that is negative or too large")
    count = math.prod(dims)
    if count > WEIGHTS_MAX:
        raise LimitError(f"skeleton: elements of tensor {name!r}", count, WEIGHTS_MAX)
    return count


def _decimal(name: str, text: str) -> int:
    """Read a number in plain ASCII digits: no sign, space, leading zero or digit of another script."""
    if not (text.isascii() and text.isdigit()) or len(text) > 13 or (text[0] == "0" and text != "0"):
        refuse(f"tensor {name!r} has {text[:40]!r} for an offset or length")
    value = int(text)
    if value > WEIGHTS_MAX:
        raise LimitError(f"skeleton: place of tensor {name!r}", value, WEIGHTS_MAX)
    return value


def _value(fields: Fields) -> ValueInfo:
    found: ValueInfo = fields.get("type") or ValueInfo("", None, None)
    return replace(found, name=fields.get("name", ""))


def _type(fields: Fields) -> ValueInfo:
    """Describe a type, as a value without a name. An optional value counts as the value."""
    kinds = fields.keys() - {"denotation"}
    if len(kinds) > 1:
        refuse("a type is of two kinds")  # a parser keeps the last one
    if "tensor_type" in fields:
        return ValueInfo("", *fields["tensor_type"])
    key, inner = fields.get("map_type", (None, fields.get("sequence_type", fields.get("optional_type"))))
    found: ValueInfo = inner or ValueInfo("", None, None)
    if "optional_type" in fields:
        return found
    if "map_type" in fields and found.form == "tensor":
        return replace(found, form="map", key_type=key)
    forms: dict[str, Form] = {"tensor": "sequence", "map": "maps"}
    if "sequence_type" in fields and found.form in forms:
        return replace(found, form=forms[found.form])
    return ValueInfo("", None, None)


def _dim(fields: Fields) -> int | str | None:
    if "dim_value" in fields and "dim_param" in fields:
        refuse("a dimension is both a number and a name")
    value: int | str | None = fields.get("dim_value", fields.get("dim_param") or None)
    if isinstance(value, int) and value < 0:
        refuse(f"a dimension is {value}")
    if isinstance(value, str) and not printable(value):
        refuse("the name of a dimension can't be printed")
    return value


_HANDLERS: dict[str, Callable[[Fields], Any]] = {
    "Model": _model,
    "Opset": _opset,
    "MainGraph": _main_graph,
    "Node": _node,
    "Attribute": _attribute,
    "Tensor": _tensor,
    "Weight": _weight,
    "Property": lambda fields: (fields.get("key", ""), fields.get("value", "")),
    "Entry": lambda fields: (fields.get("key", ""), fields.get("value", "")),
    "Value": _value,
    "Type": _type,
    "ElementType": lambda fields: fields.get("elem_type"),
    "MapType": lambda fields: (fields.get("key_type", 0), fields.get("value_type")),
    "TensorType": lambda fields: (fields.get("elem_type", 0), fields.get("shape")),
    "Shape": lambda fields: tuple(fields.get("dim", ())),
    "Dim": _dim,
}
