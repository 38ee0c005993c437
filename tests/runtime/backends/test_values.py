"""Outputs that are text, maps, sequences or optional, as arrays with names of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from seed_runtime import backends
from seed_runtime.backends import Runner, TensorSpec, input_spec, output_specs
from seed_runtime.backends.values import ValueType, input_type, output_type
from seed_runtime.errors import InputError, UnsupportedError
from seed_runtime.skeletons.info import ValueInfo
from seed_runtime.skeletons.onnx import scan
from tests.support import typed_models
from tests.support.typed_models import FEATURES, LABELS


def opened(model: onnx.ModelProto, folder: Path) -> Runner:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return backends.get().open(folder, "fast", threads=1)


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((count, FEATURES)).astype(np.float32)}


def names_and_types(specs: tuple[TensorSpec, ...]) -> list[tuple[str, str]]:
    return [(spec.name, spec.dtype) for spec in specs]


def test_text_is_an_array_of_str(rng: np.random.Generator, tmp_path: Path) -> None:
    runner = opened(typed_models.labels(rng), tmp_path)
    assert names_and_types(runner.outputs) == [("label", "string"), ("p", "float32")]
    outputs = runner.run(rows(20))
    assert outputs["label"].tolist() == [LABELS[best] for best in outputs["p"].argmax(axis=1)]


@pytest.mark.parametrize("text", [False, True])
def test_a_list_of_maps_is_its_keys_and_a_row_of_values_for_each(
    text: bool, rng: np.random.Generator, tmp_path: Path
) -> None:
    runner = opened(typed_models.zipmap(rng, text=text), tmp_path)
    key = "string" if text else "int64"
    assert names_and_types(runner.outputs) == [("prob.keys", key), ("prob.values", "float32")]
    outputs = runner.run(rows(4))
    # Maps are sorted by their keys; one of these begins with "a".
    order = sorted(range(3), key=lambda place: LABELS[place].encode()) if text else [0, 1, 2]
    assert outputs["prob.keys"].tolist() == ([LABELS[place] for place in order] if text else [10, 20, 30])
    assert (outputs["prob.values"].dtype, outputs["prob.values"].shape) == (np.float32, (4, 3))
    assert np.allclose(outputs["prob.values"].sum(axis=1), 1)
    assert [*runner.run(rows(2), ["prob.values"])] == ["prob.values"]


def test_a_sequence_is_its_elements(rng: np.random.Generator, tmp_path: Path) -> None:
    runner = opened(typed_models.sequence(rng), tmp_path)
    assert names_and_types(runner.outputs) == [("rows.*", "float32")]
    outputs = runner.run(rows(3))
    assert {name: array.shape for name, array in outputs.items()} == {f"rows.{row}": (1, 3) for row in range(3)}
    assert [*runner.run(rows(2), ["rows.*"])] == ["rows.0", "rows.1"]
    with pytest.raises(InputError, match=r"it has rows\.\*"):
        runner.run(rows(2), ["rows"])


def test_an_optional_output_is_its_value_or_nothing(rng: np.random.Generator, tmp_path: Path) -> None:
    outputs = opened(typed_models.optional(rng), tmp_path).run(rows(2))
    assert np.array_equal(outputs["o"], outputs["p"])
    runner = opened(typed_models.optional(rng, missing=True), tmp_path)
    assert names_and_types(runner.outputs) == [("p", "float32"), ("o", "float32")]
    assert [*runner.run(rows(2))] == ["p"]


@pytest.mark.parametrize(
    "array", [np.array(["dog", "cat"]), np.array(["dog", "cat"], object), np.array(["dog", "cat"], ">U9")], ids=str
)
def test_text_is_given_as_str(array: np.ndarray, rng: np.random.Generator, tmp_path: Path) -> None:
    model = typed_models.text(rng)
    runner = opened(model, tmp_path)
    assert runner.inputs == (TensorSpec("s", "string", ("n",)),)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert np.array_equal(runner.run({"s": array})["y"], weights[[1, 0]])


@pytest.mark.parametrize(
    "array", [np.array([b"cat"]), np.array([1]), np.array(["cat", None], object), np.array([["cat"], "dog"], object)]
)
def test_what_is_no_text_is_refused(array: np.ndarray, rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s: string\[n\] is expected, .* was given; convert it"):
        opened(typed_models.text(rng), tmp_path).run({"s": array})


@pytest.mark.parametrize("make", [typed_models.labels, typed_models.zipmap, typed_models.sequence, typed_models.text])
def test_a_skeleton_says_the_same_as_the_backend(make, rng: np.random.Generator, tmp_path: Path) -> None:
    model = make(rng)
    runner = opened(model, tmp_path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "model.weights"), ("offset", "0"), ("length", str(4 * np.prod(tensor.dims)))):
            tensor.external_data.add(key=key, value=value)
    info = scan(model.SerializeToString())
    assert tuple(input_spec(value) for value in info.inputs) == runner.inputs
    found = tuple(spec for value in info.outputs for spec in output_specs(value))
    assert names_and_types(found) == names_and_types(runner.outputs)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("bfloat16 output", "Cast to float at this output"),
        ("bfloat16 input", "Cast from float32 at this input"),
        ("sequence input", "tensors as its inputs"),
        ("map input", "DictVectorizer"),
    ],
)
def test_what_no_array_can_be_is_refused_with_advice_that_can_be_followed(
    kind: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=advice):
        opened(typed_models.refused(kind), tmp_path)


def test_other_types_are_refused_without_a_cast_that_does_not_exist() -> None:
    for kind, advice in (
        ("sparse_tensor(float)", "dense one"),
        ("seq(seq(tensor(float)))", "without the steps"),
        ("seq(tensor(bfloat16))", "Cast to float"),
        ("optional(tensor(bfloat16))", "Cast to float"),
    ):
        with pytest.raises(UnsupportedError, match=advice):
            output_type("y", kind, ())
    assert input_type("x", "optional(tensor(float))", (2,)).specs == (TensorSpec("x", "float32", (2,)),)
    assert output_type("y", "optional(seq(tensor(double)))", ()).specs == (TensorSpec("y.*", "float64", None),)


def test_maps_of_different_keys_make_no_table() -> None:
    kind = ValueType("prob", "maps", "float32", (), "int64")
    with pytest.raises(UnsupportedError, match="zipmap=False"):
        dict(kind.arrays([{0: 1.0}, {1: 1.0}]))
    empty = dict(kind.arrays([]))
    assert (empty["prob.keys"].shape, empty["prob.values"].shape) == ((0,), (0, 0))
    one = dict(ValueType("m", "map", "float32", (), "string").arrays({"a": 1.0, "b": 2.0}))
    assert (one["m.keys"].tolist(), one["m.values"].tolist()) == (["a", "b"], [1, 2])


def test_two_outputs_that_make_one_name_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    for name, make in (("prob.keys", typed_models.zipmap), ("rows.7", typed_models.sequence)):
        model = make(rng)
        model.graph.node.add(op_type="Identity", input=["x"], output=[name])
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        with pytest.raises(UnsupportedError, match="one name"):
            opened(model, tmp_path)


def test_a_type_of_another_kind_is_unknown() -> None:
    assert input_spec(ValueInfo("q", 1, (2,), "sequence")).dtype == "unknown"
    assert [spec.dtype for spec in output_specs(ValueInfo("y", 999, ()))] == ["unknown"]


def test_a_locale_that_a_machine_lacks_is_named_with_the_next_step(tmp_path: Path) -> None:
    node = onnx.helper.make_node("StringNormalizer", ["s"], ["y"], case_change_action="UPPER", locale="xx_XX.UTF-8")
    texts = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, [None]) for name in "sy"]
    graph = onnx.helper.make_graph([node], "g", texts[:1], texts[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedError, match=r"locale-gen xx_XX\.UTF-8"):
        opened(model, tmp_path)
    node.attribute[1].s = b"C.UTF-8"
    graph = onnx.helper.make_graph([node], "g", texts[:1], texts[1:])
    model.graph.CopyFrom(graph)
    assert opened(model, tmp_path).run({"s": np.array(["dog"])})["y"].tolist() == ["DOG"]
