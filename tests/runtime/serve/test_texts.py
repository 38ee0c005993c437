"""Text, maps and sequences through the Open Inference Protocol: datatype BYTES, and arrays with names of their own."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_runtime import backends
from seed_runtime.backends import TensorSpec
from seed_runtime.errors import InputError
from seed_runtime.seed import open as open_seed
from seed_runtime.serve import ServedModel, limits
from seed_runtime.serve.plan import plan_server
from seed_runtime.serve.protocol import Request, read_request, write_answer
from tests.support import typed_models
from tests.support.model_seeds import build_model_seed
from tests.support.typed_models import FEATURES

TEXTS = ["dog", "Hünd 🐕", "", '"quoted" \\ "data": [1]', "a\x1b[31m\n"]


def text_model(*shape: int | str) -> ServedModel:
    return ServedModel("m", "1", (TensorSpec("s", "string", shape),), (TensorSpec("y", "string", shape),), dict)


def read(entry: Mapping[str, Any], rest: bytes = b"", to: ServedModel | None = None, **more: Any) -> Request:
    head = json.dumps({"inputs": [{"name": "s", "datatype": "BYTES", **entry}], **more}).encode()
    return read_request(bytearray(head + rest), len(head), to or text_model("n"))


def packed(*texts: str) -> bytes:
    return b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)


def binary(data: bytes, *shape: int) -> Request:
    to = text_model(*("abc"[: len(shape)]))
    return read({"shape": list(shape), "parameters": {"binary_data_size": len(data)}}, data, to)


def served(model: onnx.ModelProto, folder: Path) -> ServedModel:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    runner = backends.get().open(folder, "fast", threads=1)
    return ServedModel("m", "1", runner.inputs, runner.outputs, runner.run)


def answer(to: ServedModel, request: Request) -> tuple[dict[str, Any], bytes]:
    size, parts = write_answer(to, request, to.run(request.feeds))
    body = b"".join(bytes(part) for part in parts)
    size = len(body) if size is None else size
    return json.loads(body[:size], parse_constant=pytest.fail), body[size:]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_text_is_read_from_json_and_from_bytes(ascii_only: bool) -> None:
    entry = {"name": "s", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    body = json.dumps({"inputs": [entry]}, ensure_ascii=ascii_only).encode()
    request = read_request(bytearray(body), len(body), text_model("n"))
    assert request.feeds["s"].tolist() == TEXTS
    assert binary(packed(*TEXTS), len(TEXTS)).feeds["s"].tolist() == TEXTS


def test_text_may_be_flat_or_nested() -> None:
    nested = [["a", "b"], ["c", "d"]]
    for data in (nested, ["a", "b", "c", "d"]):
        assert read({"shape": [2, 2], "data": data}, to=text_model("a", "b")).feeds["s"].tolist() == nested
    assert read({"shape": [], "data": ["a"]}, to=text_model()).feeds["s"].tolist() == "a"
    assert read({"shape": [1, 1], "data": [["a"]]}, to=text_model("a", "b")).feeds["s"].tolist() == [["a"]]


def test_no_texts_are_texts_too() -> None:
    assert read({"shape": [0], "data": []}).feeds["s"].shape == (0,)
    assert binary(b"", 0).feeds["s"].shape == (0,)
    assert read({"shape": [2, 0], "data": [[], []]}, to=text_model("a", "b")).feeds["s"].shape == (2, 0)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"shape": [2], "data": ["a"]}, "neither a flat list of texts nor nested"),
        ({"shape": [1], "data": ["a", "b"]}, "neither a flat list of texts nor nested"),
        ({"shape": [1], "data": [1]}, "data is neither|neither a flat list of texts"),
        ({"shape": [1], "data": [None]}, "neither a flat list of texts"),
        ({"shape": [1], "data": "a"}, "neither a flat list of texts"),
        ({"shape": [1], "data": {"a": 1}}, "neither a flat list of texts"),
        ({"shape": [2, 1], "data": [["a"], "b"]}, "shape"),
        ({"shape": [1], "data": ["\ud800"]}, "surrogate"),
        ({"shape": [1]}, "has no data"),
        ({"shape": [1], "data": ["a"], "datatype": "FP32"}, "datatype 'FP32' was given"),
        ({"shape": [1 << 17], "data": ["a"]}, "at most 65,536 are taken"),
        ({"shape": [1], "parameters": {"binary_data_size": -1}}, "a whole number is needed"),
        ({"shape": [1], "parameters": {"binary_data_size": 9}}, "9 bytes of binary data are announced, 0 came"),
    ],
)
def test_what_is_no_text_is_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(entry)


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (packed("a")[:-1], 1, "end within a text"),
        (packed("a")[:3], 1, "end within a text"),
        (packed("a"), 2, "end within a text"),
        (packed("a", "b"), 1, "5 bytes are left"),
        (b"\xff\xff\xff\xffabc", 1, "end within a text"),
        (b"\1\0\0\0\xff", 1, "not UTF-8"),
        (b"\3\0\0\0\xed\xa0\x80", 1, "not UTF-8"),
    ],
)
def test_bytes_that_are_no_texts_are_refused(data: bytes, count: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        binary(data, count)


def test_a_request_of_text_takes_no_more_memory_than_planned() -> None:
    worst = ["ab"] * limits.TEXTS_MAX, ["a" * 100_000 + "🐕"]
    for texts in worst:
        data = packed(*texts)
        tracemalloc.start()
        binary(data, len(texts))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limits.TEXT_COPIES * len(data) + len(data) + limits.CONVERSION_BYTES + (1 << 20)


def test_labels_are_json_strings_or_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    to = served(typed_models.labels(rng), tmp_path)
    assert to.metadata()["outputs"][0] == {"name": "label", "datatype": "BYTES", "shape": [-1]}
    entry = {"name": "x", "datatype": "FP32", "shape": [2, FEATURES], "data": [0.5] * (2 * FEATURES)}
    body = json.dumps({"inputs": [entry]}).encode()
    text, rest = answer(to, read_request(bytearray(body), len(body), to))
    label = text["outputs"][0]
    assert (label["datatype"], label["shape"], rest) == ("BYTES", [2], b"")
    expected = to.run({"x": np.full((2, FEATURES), 0.5, np.float32)})["label"].tolist()
    assert label["data"] == expected
    body = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    text, rest = answer(to, read_request(bytearray(body), len(body), to))
    assert text["outputs"][0]["parameters"] == {"binary_data_size": len(packed(*expected))}
    assert rest.startswith(packed(*expected))


def asked(to: ServedModel, count: int, *outputs: str) -> list[dict[str, Any]]:
    entry = {"name": "x", "datatype": "FP32", "shape": [count, FEATURES], "data": [0.5] * (count * FEATURES)}
    body = json.dumps({"inputs": [entry], "outputs": [{"name": name} for name in outputs]}).encode()
    found: list[dict[str, Any]] = answer(to, read_request(bytearray(body), len(body), to))[0]["outputs"]
    return found


def test_maps_are_keys_and_values(rng: np.random.Generator, tmp_path: Path) -> None:
    to = served(typed_models.zipmap(rng), tmp_path)
    assert to.metadata()["outputs"] == [
        {"name": "prob.keys", "datatype": "INT64", "shape": [-1]},
        {"name": "prob.values", "datatype": "FP32", "shape": [-1, -1]},
    ]
    keys, values = asked(to, 2)
    assert (keys["name"], keys["data"]) == ("prob.keys", [10, 20, 30])
    assert (values["name"], values["shape"]) == ("prob.values", [2, 3])
    assert [each["name"] for each in asked(to, 2, "prob.values")] == ["prob.values"]


def test_a_sequence_is_answered_element_by_element(rng: np.random.Generator, tmp_path: Path) -> None:
    to = served(typed_models.sequence(rng), tmp_path)
    (listed,) = to.metadata()["outputs"]
    assert (listed["name"], listed["datatype"], listed["parameters"]) == ("rows.*", "FP32", {"any_shape": True})
    for outputs in ((), ("rows.*",)):
        assert [(each["name"], each["shape"]) for each in asked(to, 11, *outputs)] == [
            (f"rows.{row}", [1, 3]) for row in range(11)
        ]
    with pytest.raises(InputError, match="no output 'rows'"):
        asked(to, 1, "rows")


def test_an_optional_output_without_a_value_is_left_out(rng: np.random.Generator, tmp_path: Path) -> None:
    assert [each["name"] for each in asked(served(typed_models.optional(rng, missing=True), tmp_path), 1)] == ["p"]


def test_a_plan_makes_room_for_texts(rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "m.seed").write_bytes(build_model_seed(typed_models.text(rng)))
    plan = plan_server(open_seed(tmp_path / "m.seed"))
    assert (plan.has_text, plan.body_max) == (True, limits.BODY_FREE)
    assert plan.extra_bytes > limits.TEXT_COPIES * plan.body_max
