"""SPEC.md's table of the skeleton's fields against the walker's, and against onnx.proto itself."""

from __future__ import annotations

import re
from operator import attrgetter

import onnx
import pytest

from seed_runtime.format.dtypes import BY_CODE
from seed_runtime.skeletons import onnx_schema as schema
from seed_runtime.skeletons import onnx_tensors
from tests.support import spec_fields

TABLE = spec_fields.messages()
MESSAGES = {
    "ModelProto": ["Model"],
    "OperatorSetIdProto": ["Opset"],
    "GraphProto": ["Graph", "MainGraph"],
    "NodeProto": ["Node"],
    "AttributeProto": ["Attribute"],
    "TensorProto": ["Tensor", "Weight"],
    "StringStringEntryProto": ["Entry", "Property"],
    "ValueInfoProto": ["Value"],
    "TypeProto": ["Type"],
    "TypeProto.Tensor": ["TensorType"],
    "TypeProto.SparseTensor": ["TensorType"],
    "TypeProto.Sequence": ["ElementType"],
    "TypeProto.Optional": ["ElementType"],
    "TypeProto.Map": ["MapType"],
    "TensorShapeProto": ["Shape"],
    "TensorShapeProto.Dimension": ["Dim"],
}
"""The walker's names of each message of onnx.proto."""
OF_TRAINING = {"Addition", "AddedGraph", "NamedModel", "NamedGraph", "NamedNode"}
"""Messages of training graphs, whose rules in SPEC.md refer to the table."""
KINDS = {
    schema.INT: "int",
    schema.INT32: "int32",
    schema.STR: "text",
    schema.LONG: "text",
    schema.BYTES: "bytes",
    schema.VARINTS: "varints",
    schema.FLOAT: "float",
}
LIMITS_OF_THE_MAIN_GRAPH = {"initializer", "input", "output"}
"""Lists that have a limit there, which the rule `counts` states."""


def known(name: str) -> dict[int, tuple[str, frozenset[str], str]]:
    """Return the walker's fields of one of its messages as SPEC.md writes them."""
    found = {}
    for number, (field, kind, most) in schema.MESSAGES[name].items():
        kinds = {KINDS[kind]} if kind in KINDS else {each for each, names in MESSAGES.items() if kind in names}
        many = {schema.ONE: "once", schema.MANY: "any"}.get(most, str(most))
        if name == "MainGraph" and field in LIMITS_OF_THE_MAIN_GRAPH:
            many = "any"
        found[number] = field, frozenset(kinds), many
    return found


def test_all_messages_are_described() -> None:
    assert TABLE.keys() == MESSAGES.keys()
    assert {name for names in MESSAGES.values() for name in names} == schema.MESSAGES.keys() - OF_TRAINING


@pytest.mark.parametrize("message", MESSAGES)
def test_the_table_of_a_message_is_the_walkers(message: str) -> None:
    for name in MESSAGES[message]:
        fields = known(name)
        assert fields.keys() == TABLE[message].keys()
        for number, (field, kinds, many) in fields.items():
            assert TABLE[message][number][0] == field
            assert TABLE[message][number][1] in kinds, field
            assert TABLE[message][number][2] == many, field


@pytest.mark.parametrize("message", MESSAGES)
def test_the_table_of_a_message_is_of_onnx_proto(message: str) -> None:
    made = attrgetter(message)(onnx)()
    for number, (name, kind, many) in TABLE[message].items():
        field = made.DESCRIPTOR.fields_by_number[number]
        assert field.name == name
        is_repeated = hasattr(getattr(made, name), "extend")
        packed = name in {"float_data", "int32_data", "int64_data", "double_data", "uint64_data"}
        assert (many == "once") == (not is_repeated or packed), name
        if field.message_type is not None:
            assert field.message_type.full_name == f"onnx.{kind}"
        else:
            wanted = {field.TYPE_INT64: "int", field.TYPE_INT32: "int32", field.TYPE_FLOAT: "float"}
            wanted |= {field.TYPE_STRING: "text", field.TYPE_BYTES: "bytes", field.TYPE_ENUM: "int32"}
            assert kind in ({"bytes", "varints"} if packed else {wanted[field.type]}), name


def test_the_fields_of_values_are_those_of_the_code() -> None:
    (row,) = re.findall(r"^\| AttributeProto\.type (.*)\n.*\n(\| field of the value .*)$", spec_text(), re.MULTILINE)
    numbers, fields = ([cell.strip() for cell in line.strip("| ").split("|")] for line in row)
    assert {int(number): field for number, field in zip(numbers, fields[1:], strict=True)} == schema.VALUE_FIELD


def test_the_types_of_tensors_in_the_model_are_those_of_the_code() -> None:
    table = spec_text().split("Types have the numbers of the table of holes")[1].split("Other types")[0]
    types = dict(re.findall(r"\| (\d+) \| \w+ \| (\d+|-) (?=\|)", table))
    beside = {str(code): str(onnx_tensors._BITS[code]) for code in onnx_tensors._BITS.keys() - BY_CODE.keys()}
    assert types == beside | {"8": "-"}


def test_the_version_of_onnx_proto_is_stated_alike() -> None:
    (version,) = re.findall(r"onnx\.proto \(IR version (\d+)\)", spec_text())
    for module in (schema, onnx_tensors):
        assert f"ONNX IR version {version}" in (module.__doc__ or "")


def spec_text() -> str:
    return spec_fields.PATH.read_text()
