"""TFLite skeletons: what a model says of itself, and what is accepted."""

from __future__ import annotations

import inspect
import re
import struct
from typing import Any

import pytest

from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.skeletons import tflite
from seed_runtime.skeletons import tflite_schema as schema
from seed_runtime.skeletons.cut_file import Range
from seed_runtime.skeletons.info import ExternalTensor, ValueInfo
from tests.support import tflite_bytes
from tests.support.tflite_bytes import Numbers, Scalar, Tables, buffer, code, model, numbers, operator, subgraph, tensor

WEIGHT = struct.pack("<16f", *tflite_bytes.WEIGHT)


def test_a_model_says_what_it_takes_and_gives() -> None:
    info = tflite.scan_file(model())
    assert info.inputs == (ValueInfo("x", 1, (16,)),)
    assert info.outputs == (ValueInfo("y", 1, (16,)),)
    assert info.tensors == ()


def test_a_skeleton_says_what_was_left_out() -> None:
    writer = tflite_bytes.write(tflite_bytes.model_fields())
    place = tflite_bytes.weight_range(writer)
    info = tflite.scan(tflite_bytes.cut(bytes(writer.data), [place]))
    (found,) = info.tensors
    assert isinstance(found, ExternalTensor)
    assert (found.name, found.dtype.name, found.dims, found.offset, found.size) == ("weight", "float32", (16,), *place)


def two_weights() -> tflite_bytes.Writer:
    tensors = [tensor([16], 0, "x"), tensor([16], 1, "a"), tensor([4, 4], 2, "b"), tensor([16], 0, "y")]
    graph = subgraph(tensors, [0], [3], [operator(0, [0, 1], [3])])
    return tflite_bytes.write(
        tflite_bytes.model_fields(subgraphs=[graph], buffers=[buffer(), buffer(WEIGHT), buffer(WEIGHT[::-1])])
    )


def test_names_come_in_the_order_of_the_holes() -> None:
    writer = two_weights()
    ranges = [tflite_bytes.weight_range(writer, number) for number in (1, 2)]
    info = tflite.scan(tflite_bytes.cut(bytes(writer.data), ranges, [1, 0]))
    assert [(each.name, each.dims) for each in info.tensors] == [("b", (4, 4)), ("a", (16,))]


def test_buffers_are_listed_with_the_first_tensor_that_uses_them() -> None:
    writer = two_weights()
    found = tflite.buffers(bytes(writer.data))
    assert [(each.name, each.dims, each.is_used) for each in found] == [("a", (16,), True), ("b", (4, 4), True)]
    assert found[0].place == Range(*tflite_bytes.weight_range(writer, 1))


def signature(key: str, inputs: dict[str, int], outputs: dict[str, int], graph: int = 0) -> dict[int, Any]:
    maps = [Tables([{0: name, 1: Scalar("I", at)} for name, at in ends.items()]) for ends in (inputs, outputs)]
    return {0: maps[0], 1: maps[1], 2: key, 4: Scalar("I", graph)}


def test_inputs_and_outputs_have_the_names_of_a_signature() -> None:
    other = signature("other", {"a": 0}, {"b": 2})
    own = signature("serving_default", {"image": 0}, {"scores": 2})
    info = tflite.scan_file(model(more={7: Tables([other, own])}))
    assert [each.name for each in (*info.inputs, *info.outputs)] == ["image", "scores"]


def test_names_that_can_not_be_used_are_numbered() -> None:
    tensors = [tensor([16], 0, "x\n"), tensor([16], 1, "weight"), tensor([16], 0, "y")]
    info = tflite.scan_file(model(tensors=tensors))
    assert [each.name for each in (*info.inputs, *info.outputs)] == ["input_0", "y"]


def test_free_sizes_are_those_of_the_second_shape() -> None:
    tensors = [
        tensor([1, 16], 0, "x", more={7: numbers([-1, 16])}),
        tensor([16], 1, "weight"),
        tensor([1, 16], 0, "y", more={7: numbers([-1, 16])}),
    ]
    info = tflite.scan_file(model(tensors=tensors))
    assert info.inputs[0].dims == info.outputs[0].dims == (None, 16)


def test_custom_operators_are_named_and_not_refused() -> None:
    assert tflite.scan_file(model(codes=[code(32, "Mine")])).custom_operators == ("Mine",)


def test_a_quantized_input_has_its_own_type() -> None:
    tensors = [
        tensor([16], 0, "x", 9, {4: {2: Numbers("f", [0.5]), 3: Numbers("q", [3], 8)}}),
        tensor([64], 1, "w", 9),
        tensor([16], 0, "y", 9),
    ]
    assert tflite.scan_file(model(tensors=tensors)).inputs == (ValueInfo("x", 3, (16,)),)


def sparse(values: int = 2, **changed: Any) -> bytes:
    """Return a model whose weight is a sparse row of 16: elements 3 and 9 of it."""
    indices = {0: Numbers("B", changed.get("indices", [3, 9]))}
    segments = {0: Numbers("B", changed.get("segments", [0, 2]))}
    axes = [
        {0: Scalar("b", 0), 1: Scalar("i", changed.get("dense", 1))},
        {0: Scalar("b", 1), 2: Scalar("B", 3), 3: segments, 4: Scalar("B", 3), 5: indices},
    ]
    tables = {0: numbers(changed.get("order", [0, 1])), 2: Tables(axes)}
    tensors = [tensor([16], 0, "x"), tensor([1, 16], 1, "w", more={6: tables}), tensor([16], 0, "y")]
    return model(tensors=tensors, buffers=[buffer(), buffer(bytes(4 * values))])


def test_a_sparse_tensor_stores_what_its_tables_say() -> None:
    (found,) = tflite.buffers(sparse())
    assert (found.dtype.name, found.dims) == ("float32", (2,))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"values": 3}, "12 bytes of data for 2 elements"),
        ({"indices": [3, 16]}, "an index beyond 16"),
        ({"indices": [3]}, "segments that aren't those"),
        ({"segments": [0, 1, 2]}, "segments that aren't those"),
        ({"segments": [2, 0]}, "segments that aren't those"),
        ({"order": [0, 0]}, "isn't one of its axes"),
        ({"order": [0]}, "isn't one of its axes"),
        ({"dense": 2}, "2 of 1 along a dense axis"),
    ],
)
def test_a_sparse_tensor_whose_tables_lie_is_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        tflite.scan_file(sparse(**changed))


def test_data_outside_of_the_flatbuffer_is_refused_by_name() -> None:
    for fields in (
        {"buffers": [buffer(), {1: Scalar("Q", 4096), 2: Scalar("Q", 64)}]},
        {"more": {9: Tables([{0: Scalar("I", 1)}])}},
    ):
        with pytest.raises(UnsupportedError, match="outside of its flatbuffer"):
            tflite.scan_file(model(**fields))


def test_the_schema_is_that_of_litert() -> None:
    litert = pytest.importorskip("ai_edge_litert.schema_py_generated")
    if not hasattr(litert, "StablehloCaseOptions"):
        pytest.skip("the schema of this LiteRT is older than the one that is known")
    operators = {name: value for name, value in vars(litert.BuiltinOperator).items() if isinstance(value, int)}
    assert {name: number for number, name in enumerate(schema.OPERATORS)} == operators
    types = {name.lower(): value for name, value in vars(litert.TensorType).items() if isinstance(value, int)}
    assert {
        name.replace("e4m3fn", "_e4m3fn").replace("e5m2", "_e5m2"): number for number, name in enumerate(schema.TYPES)
    } == types
    for union in ("BuiltinOptions", "BuiltinOptions2", "QuantizationDetails", "SparseIndexVector"):
        stated = {
            value: name for name, value in vars(getattr(litert, union)).items() if isinstance(value, int) and value
        }
        assert schema.UNIONS[union] == stated
    for name, fields in schema.TABLES.items():
        for number, kind in _fields(getattr(litert, name)).items():
            assert fields[number][1] in kind, f"field {number} of {name}"


_LETTERS = {"Bool": "?", "Int8": "b", "Uint8": "B", "Int16": "h", "Uint16": "H", "Int32": "i", "Uint32": "I"}
_LETTERS |= {"Int64": "q", "Uint64": "Q", "Float32": "f"}


def _fields(table: type) -> dict[int, set[str]]:
    """Return what kinds the generated accessors of a table take its fields for, by number."""
    found: dict[int, set[str]] = {}
    for name, accessor in vars(table).items():
        text = inspect.getsource(accessor) if inspect.isfunction(accessor) else ""
        place = re.search(r"_tab\.Offset\((\d+)\)", text)
        if not place or name.endswith(("Length", "IsNone", "AsNumpy")):
            continue
        scalar, inner = re.search(r"number_types\.(\w+)Flags, ", text), re.search(r"obj = (\w+)\(\)", text)
        letter = _LETTERS[scalar[1]] if scalar else "s" if "_tab.String" in text else inner[1] if inner else ""
        subgraph = {"i": "g", "I": "G"}.get(letter, letter)
        front = "[" if "(self, j)" in text else ""
        unions = set() if letter else set(schema.UNIONS)
        found[int(place[1]) // 2 - 2] = {front + letter, front + subgraph} | unions
    return found
