"""Messages of the Open Inference Protocol: requests, answers, refusals."""

from __future__ import annotations

import dataclasses
import json
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.errors import InputError
from seed_runtime.serve import limits, numbers, protocol
from seed_runtime.serve.protocol import ServedModel, read_request, write_answer
from tests.support.project import run_checked

TYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def model(dtype: str = "float32", shape: tuple[Any, ...] = ("batch", 3)) -> ServedModel:
    spec = TensorSpec("x", dtype, shape)
    outputs = (TensorSpec("y", dtype, shape), TensorSpec("z", "int64", ()))
    return ServedModel("m", "1", (spec,), outputs, lambda feeds: feeds)


def read(text: str | bytes, to: ServedModel | None = None, json_size: int | None = None) -> protocol.Request:
    body = bytearray(text.encode() if isinstance(text, str) else text)
    return read_request(body, len(body) if json_size is None else json_size, to or model())


def one(data: str, shape: str = "[1, 3]", datatype: str = "FP32", **more: Any) -> str:
    extra = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in more.items())
    return f'{{"inputs": [{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}]{extra}}}'


def answer(to: ServedModel, request: protocol.Request, **values: np.ndarray) -> tuple[dict[str, Any], bytes]:
    size, parts = write_answer(to, request, values)
    body = b"".join(bytes(part) for part in parts)
    size = len(body) if size is None else size
    return json.loads(body[:size], parse_constant=pytest.fail), body[size:]


@pytest.mark.parametrize(("datatype", "dtype"), TYPES.items())
def test_every_type_is_read_and_written_in_json_and_as_bytes(datatype: str, dtype: str) -> None:
    if dtype == "bool":
        values = np.array([[True, False, True]])
    elif dtype.startswith("float"):
        values = np.array([[0.1, -0.0, np.finfo(dtype).max]], dtype)
    else:
        values = np.array([[0, np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype)
    to = model(dtype)
    from_json = read(one(json.dumps(values.tolist()), datatype=datatype), to)
    size = {"binary_data_size": values.nbytes}
    tensor = {"name": "x", "shape": [1, 3], "datatype": datatype, "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    from_bytes = read(head + values.tobytes(), to, len(head))
    for request in (from_json, from_bytes):
        assert request.feeds["x"].dtype == values.dtype
        assert request.feeds["x"].tobytes() == values.tobytes()
        assert request.feeds["x"].flags.aligned
    text, rest = answer(to, from_json, y=values, z=np.array(5))
    assert rest == b""
    assert text["outputs"][0] == {"name": "y", "datatype": datatype, "shape": [1, 3], "data": values[0].tolist()}
    assert text["outputs"][1] == {"name": "z", "datatype": "INT64", "shape": [], "data": [5]}
    wanted = read(one(json.dumps(values.tolist()), datatype=datatype, parameters={"binary_data_output": True}), to)
    text, rest = answer(to, wanted, y=values, z=np.array(5))
    assert text["outputs"][0]["parameters"] == {"binary_data_size": values.nbytes}
    assert rest == values.tobytes() + np.array(5).tobytes()


def test_the_examples_of_the_specification_are_understood() -> None:
    # The example of inference_rest.md.
    specs = (TensorSpec("input0", "uint32", (2, 2)), TensorSpec("input1", "bool", (3,)))
    to = ServedModel("mymodel", "1", specs, (TensorSpec("output0", "float32", (3, 2)),), lambda feeds: {})
    text = """{ "id" : "42", "inputs" : [
      { "name" : "input0", "shape" : [ 2, 2 ], "datatype" : "UINT32", "data" : [ 1, 2, 3, 4 ] },
      { "name" : "input1", "shape" : [ 3 ], "datatype" : "BOOL", "data" : [ true, false, true ] } ],
      "outputs" : [ { "name" : "output0" } ] }"""
    request = read(text, to)
    assert request.feeds["input0"].tolist() == [[1, 2], [3, 4]]
    assert request.feeds["input1"].tolist() == [True, False, True]
    values = np.array([[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]], np.float32)
    assert answer(to, request, output0=values)[0] == {
        "model_name": "mymodel",
        "model_version": "1",
        "id": "42",
        "outputs": [{"name": "output0", "shape": [3, 2], "datatype": "FP32", "data": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]}],
    }


@pytest.mark.parametrize("data", ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [1 ,2, 3 ] ,\n\t[4,5,6]] "])
def test_data_may_be_flat_or_nested(data: str) -> None:
    assert read(one(data, "[2, 3]")).feeds["x"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_scalar_and_axes_of_one_are_data_too() -> None:
    assert read(one("[5]", "[]"), model(shape=())).feeds["x"].shape == ()
    assert read(one("[[[[5]]]]", "[1,1,1,1]"), model(shape=(1, 1, 1, 1))).feeds["x"].shape == (1, 1, 1, 1)


@pytest.mark.parametrize(("shape", "nested"), [([1, 0, 32], "[ [ ] ]"), ([2, 0, 3], "[[],[]]"), ([0, 3, 32], "[]")])
def test_an_empty_tensor_is_data_too(shape: list[int], nested: str) -> None:
    to = model(shape=("batch", "past", None))
    for data in ("[]", nested):
        assert read(one(data, str(shape)), to).feeds["x"].shape == tuple(shape)
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": 0}}
    head = json.dumps({"inputs": [entry]}).encode()
    request = read(head, to, len(head))
    assert request.feeds["x"].shape == tuple(shape)
    text, rest = answer(to, request, y=np.zeros(shape, np.float32), z=np.array(5))
    assert (text["outputs"][0]["shape"], text["outputs"][0]["data"], rest) == (shape, [], b"")


def test_a_model_that_an_empty_tensor_would_end_is_given_none() -> None:
    to = dataclasses.replace(model(), takes_empty=False)
    assert read(one("[1,2,3]"), to).feeds["x"].shape == (1, 3)
    with pytest.raises(InputError, match="is empty, on which operators of this model end the process"):
        read(one("[]", "[0, 3]"), to)


def test_an_input_without_a_shape_takes_any() -> None:
    to = model()
    spec = TensorSpec("x", "float32", None)
    to = ServedModel(to.name, to.version, (spec,), to.outputs, to.run)
    for shape in ([], [3], [1, 1, 3]):
        data = json.dumps(np.ones(shape).reshape(-1).tolist())
        assert read(one(data, str(shape)), to).feeds["x"].shape == tuple(shape)
    assert to.metadata()["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1], "parameters": {"any_shape": True}}
    ]


def test_text_inside_a_string_that_looks_like_data_is_not_data() -> None:
    text = one("[1,2,3]", id='"data": [9,9,9], "data":[')
    assert read(text).id == '"data": [9,9,9], "data":['


def test_unknown_keys_and_parameters_are_ignored() -> None:
    text = one("[1,2,3]", model_name="m", parameters={"priority": 3, "x": [1]}, more={"data": [4]})
    text = text[:-1] + ', "data": [1, 2]}'
    assert read(text).feeds["x"].tolist() == [[1, 2, 3]]


def test_outputs_come_in_the_order_in_which_they_are_asked_for() -> None:
    wanted = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
    request = read(one("[1,2,3]", outputs=wanted))
    assert request.outputs == (("z", True), ("y", False))
    text, rest = answer(model(), request, y=np.ones((1, 3), np.float32), z=np.array(5))
    assert [entry["name"] for entry in text["outputs"]] == ["z", "y"]
    assert text["outputs"][1]["data"] == [1, 1, 1]
    assert rest == np.array(5).tobytes()


def test_nan_and_infinities_are_null() -> None:
    values = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    assert answer(model(), read(one("[1,2,3]")), y=values, z=np.array(1))[0]["outputs"][0]["data"] == [None] * 3


def test_long_data_is_read_and_written_in_portions(rng: np.random.Generator) -> None:
    values = rng.normal(size=(50, 1003))
    to = model("float64", ("batch", 1003))
    for data in (values.tolist(), values.reshape(-1).tolist()):
        request = read(one(json.dumps(data), "[50, 1003]", "FP64"), to)
        assert np.array_equal(request.feeds["x"], values)
    text, _ = answer(to, request, y=values, z=np.array(1))
    assert np.array_equal(np.array(text["outputs"][0]["data"]).reshape(values.shape), values)


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "is not JSON"),
        ("nonsense", "is not JSON"),
        ("[1]", "not a JSON object"),
        ("{", "is not JSON"),
        ('{"inputs": NaN}', "NaN is not a number"),
        (b'{"id": "\xff"}', "is not JSON"),
        ("{}", "needs inputs"),
        ('{"inputs": {}}', "needs inputs"),
        ('{"inputs": [7]}', "needs inputs"),
        ('{"inputs": []}', "input 'x' is missing"),
        (one("[1,2,3]", id=7), "id must be"),
        (one("[1,2,3]", id="7" * 1000), "id must be"),
        (one("[1,2,3]").replace('"x"', '"other"'), "no input 'other'; it expects x: FP32[-1, 3]"),
        (one("[1,2,3]").replace('"x"', "5"), "no input 5"),
        (one("[1,2,3]", datatype="FP64"), "datatype 'FP64' was given"),
        (one("[1,2,3]", datatype="BYTES"), "datatype 'BYTES'"),
        (one("[1,2,3]", "[3]"), "shape [3] was given"),
        (one("[1,2,3]", "[1, 4]"), "shape [1, 4]"),
        (one("[1,2,3]", "[1, 3.0]"), "shape must be"),
        (one("[1,2,3]", "[-1, 3]"), "shape must be"),
        (one("[1]", "[0, 3]"), "a size of 0 in the shape asks for none"),
        (one("[[]]", "[0, 3]"), "neither a flat list of 0 numbers"),
        (one("[]", "[0, 2147483647]"), "its other sizes make more than"),
        (one("[1,2,3]", "[true, 3]"), "shape must be"),
        (one("[1,2,3]", "7"), "shape must be"),
        (one("[1,2,3]", str([1] * 100)), "shape must be"),
        (one("[1,2,3]", "[99999999999999999999, 3]"), "shape must be"),
        (one("[1,2,3]", "[2147483647, 3]"), "neither a flat list"),
        (one("[1,2]"), "neither a flat list of 3 numbers"),
        (one("[1,2,3,4]"), "neither a flat list"),
        (one("[[1,2],[3]]"), "neither a flat list"),
        (one("[1,2,3", "[1, 3]"), "is not JSON"),
        (one("[[1,2,3]"), "neither a flat list"),
        (one("[1,,3]"), "not JSON"),
        (one("[,1,2]"), "not JSON"),
        (one("[1 2,3,4]"), "not JSON"),
        (one("[1,2,NaN]"), "NaN is not a number"),
        (one("[1,2,Infinity]"), "Infinity is not a number"),
        (one("[1,2,1e400]"), "too large for float32"),
        (one("[1,2,1e39]"), "too large for float32"),
        (one("[1,2,1" + "0" * 400 + "]"), "too large for float32"),
        (one("[1,2,1" + "0" * 5000 + "]"), "not JSON"),
        (one("[1,2,1" + "0" * 100_000 + "]"), "more than 65,536 characters"),
        (one("[1,2,true]"), "must hold numbers"),
        (one("[1,2,null]"), "must hold numbers"),
        (one("[1,2,0x10]"), "not JSON"),
        (one("[1,2,01]"), "not JSON"),
        (one("[1,2,+1]"), "not JSON"),
        (one('["a","b","c"]'), "has no data"),
        (one("[[1,2,3],4[,5,6]]", "[2, 3]"), "don't match"),
        (one('{"a": 1}'), "has no data"),
        (one("7"), "has no data"),
        (one('"data"'), "has no data"),
        (one("[1,2,3]", outputs=7), "needs outputs"),
        (one("[1,2,3]", outputs=[{"name": "other"}]), "no output 'other'; it has y, z"),
        (one("[1,2,3]", outputs=[{"name": "y"}, {"name": "y"}]), "asked for twice"),
        (one("[1,2,3]", outputs=[{"name": "y", "parameters": 7}]), "parameters must be an object"),
        (one("[1,2,3]", parameters={"binary_data_output": "yes"}), "true or false"),
        ("[" * 60_000, "nested too deeply"),
        ('{"inputs": ' + '{"a":' * 4000, "is not JSON"),
        (f'{{"inputs": "{"a" * 70_000}"}}', "too long beside the numbers"),
        ('{"inputs": [' + '"",' * 5000, "too long beside the numbers"),
        (" " * 70_000 + "{}", "too long beside the numbers"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused_with_the_reason(text: str | bytes, reported: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert reported in str(caught.value)
    assert len(str(caught.value)) < 600
    assert numbers._MARK not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        "[[1]2,[3]]",
        "[[1],2[3]]",
        "[[1,2],3[,4]]",
        "[[,1],[2,3]]",
        "[[1,],[2,3]]",
        "[[1,2][,3,4]]",
        "[[1,2],[3,4],]",
        "[[1 2],[3,4]]",
        "[[],[]]",
    ],
)
def test_brackets_in_wrong_places_are_not_json(data: str) -> None:
    for shape in ("[2, 2]", "[2, 1]"):
        with pytest.raises(InputError):
            read(one(data, shape), model(shape=(None, None)))


@pytest.mark.parametrize(
    ("datatype", "data", "reported"),
    [
        ("UINT8", "[1,2,256]", "outside of 0 to 255"),
        ("INT8", "[1,2,-129]", "outside of -128"),
        ("INT64", "[1,2,9223372036854775808]", "outside of"),
        ("INT32", "[1,2,3.0]", "must hold integers"),
        ("INT32", "[1,2,true]", "must hold integers"),
        ("BOOL", "[0,1,1]", "must hold true and false"),
        ("FP16", "[1,2,65536]", "too large for float16"),
    ],
)
def test_values_that_the_type_cannot_hold_are_refused(datatype: str, data: str, reported: str) -> None:
    with pytest.raises(InputError, match="input 'x'") as caught:
        read(one(data, datatype=datatype), model(TYPES[datatype]))
    assert reported in str(caught.value)


@pytest.mark.parametrize(
    ("size", "sent", "reported"),
    [
        (12, 11, "11 came"),
        (12, 13, "1 bytes stand behind"),
        (11, 11, "make 12"),
        (-12, 12, "make 12"),
        (1 << 62, 12, "make 12"),
        ("12", 12, "make 12"),
        (True, 12, "make 12"),
    ],
)
def test_binary_data_of_another_size_are_refused(size: Any, sent: int, reported: str) -> None:
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(InputError) as caught:
        read(head + bytes(sent), json_size=len(head))
    assert reported in str(caught.value)


def test_a_byte_that_is_not_a_bool_and_data_given_twice_are_refused() -> None:
    entry = {"name": "x", "shape": [1, 3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}}
    head = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(InputError, match="a byte of 0 or 1"):
        read(head + b"\x00\x01\x02", model("bool"), len(head))
    both = json.dumps({"inputs": [{**entry, "data": [True, False, True]}]}).encode()
    with pytest.raises(InputError, match="send one of them"):
        read(both + bytes(3), model("bool"), len(both))
    twice = json.dumps({"inputs": [entry, entry]}).encode()
    with pytest.raises(InputError, match="given twice"):
        read(twice + bytes(6), model("bool"), len(twice))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("b'{\"id\": \"' + b'\\\\\"' * n", id="escaped quotes"),
        pytest.param('b\'{"id": "\' + b"x" * n', id="a string"),
        pytest.param('b\'{"data": \' + b" " * n', id="spaces"),
        pytest.param('b\'{"data": [\' + b"1," * n', id="numbers"),
        pytest.param('b\'{"data": [1\' + b" [" * n + b\'"\'', id="brackets"),
    ],
)
def test_a_request_that_does_not_end_is_refused_in_one_pass(body: str) -> None:
    # A limit of the kernel's, far from what one pass takes and from what a pass from each byte would take.
    run_checked(
        [
            sys.executable,
            "-c",
            (
                "import resource\n"
                "resource.setrlimit(resource.RLIMIT_CPU, (30, 30))\n"
                "from seed_runtime.errors import InputError\n"
                "from seed_runtime.serve.numbers import extract_arrays\n"
                f"n = 1 << 20\nbody = {body}\n"
                "try: extract_arrays(body)\n"
                "except InputError: pass\n"
                "else: raise SystemExit('it was taken')\n"
            ),
        ]
    )


@pytest.mark.parametrize("size", [limits.ENVELOPE_MAX - 100, 10 * limits.ENVELOPE_MAX])
def test_a_string_is_matched_up_to_the_limit_and_no_further(size: int) -> None:
    text = one("[1,2,3]", id="\\" * (size // 4) + '"data":[' + '"' * (size // 4))
    with pytest.raises(InputError, match="too long beside" if size > limits.ENVELOPE_MAX else "id must be"):
        read(text)


@pytest.mark.parametrize("unit", ["[[],[]],", "[0],", "1,", '"a",', '{"a":0},', "0.1,"])
def test_parsing_a_request_takes_no_multiple_of_its_size(unit: str) -> None:
    size = 4 << 20
    data = "[" + unit * (size // len(unit)) + "0]"
    text = one(data, f"[{size // len(unit) + 1}, 3]").encode()
    body = bytearray(text)
    del text, data
    tracemalloc.start()
    with pytest.raises(InputError):
        read_request(body, len(body), model())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size + limits.CONVERSION_BYTES


def test_reading_data_takes_little_more_memory_than_the_array() -> None:
    count = 1 << 17
    body = bytearray(one("[" + "1.25," * (count - 1) + "1.25]", f"[{count}]").encode())
    tracemalloc.start()
    request = read_request(body, len(body), model(shape=(None,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert request.feeds["x"].shape == (count,)
    assert peak < 4 * count + limits.CONVERSION_BYTES
