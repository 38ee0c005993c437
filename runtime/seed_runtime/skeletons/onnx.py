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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from seed_runtime.errors import LimitError, UnsupportedError
from seed_runtime.format.dtypes import BY_CODE
from seed_runtime.format.parts import onnx_skeleton
from seed_runtime.format.primitives import printable
from seed_runtime.format.sections.holes import ALIGNMENT
from seed_runtime.limits import METADATA_MAX, PART_RAW_MAX, RANK_MAX, WEIGHTS_MAX
from seed_runtime.skeletons import metadata
from seed_runtime.skeletons import onnx_schema as schema
from seed_runtime.skeletons.info import ExternalTensor, Form, SkeletonInfo, ValueInfo, refuse
from seed_runtime.skeletons.onnx_tensors import check_inline
from seed_runtime.skeletons.onnx_walker import Fields, Handler, Walker

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
        walker = Walker(octets, HANDLERS)
        info: SkeletonInfo = walker.message("Model", 0, len(octets), 0)
        return replace(info, operators=frozenset(walker.noted))


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


def check_node(fields: Fields) -> None:
    """Refuse a node that a skeleton may not have."""
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


HANDLERS: dict[str, Handler] = {
    "Model": _model,
    "Opset": _opset,
    "MainGraph": _main_graph,
    "Node": check_node,
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
