"""The backend interface, and ONNX Runtime behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from seed_runtime import backends
from seed_runtime.backends import TensorSpec, check_feeds, dims_of, free_axes
from seed_runtime.backends.tensors import made_in_place
from seed_runtime.errors import InputError, UnsupportedError
from tests.support.assembled_models import save, save_layers, save_tokens

MODES = ("fast", "lean", "small")

TEXT = (
    TensorSpec("ids", "int64", ("batch", "sequence")),
    TensorSpec("mask", "int64", ("batch", "sequence")),
    TensorSpec("scale", "float32", (None, 3)),
)


def text_feeds() -> dict[str, np.ndarray]:
    ids = np.ones((2, 5), np.int64)
    return {"ids": ids, "mask": ids.copy(), "scale": np.ones((7, 3), np.float32)}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_models_outputs(tmp_path: Path, mode: str) -> None:
    runner = backends.get().open(save_layers(tmp_path), mode, threads=1)
    weights = np.fromfile(tmp_path / "model.weights", np.float32).reshape(2, 64, 64)
    x = np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(3, 64)
    expected = np.maximum(np.maximum(x @ weights[0], 0) @ weights[1], 0)
    outputs = runner.run({"x": x})
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], expected, atol=1e-5)
    runner.close()


def test_a_runner_says_what_the_model_takes_and_gives(tmp_path: Path) -> None:
    runner = backends.get().open(save_layers(tmp_path), "lean", threads=1)
    assert runner.inputs == (TensorSpec("x", "float32", ("batch", 64)),)
    assert runner.outputs == (TensorSpec("y", "float32", ("batch", 64)),)
    assert str(runner.inputs[0]) == "x: float32[batch, 64]"


def test_a_closed_runner_refuses_to_run_and_closes_twice(tmp_path: Path) -> None:
    runner = backends.get().open(save_layers(tmp_path), "lean")
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        runner.run({"x": np.ones((1, 64), np.float32)})


def test_big_endian_feeds_give_the_same_as_native_ones(tmp_path: Path) -> None:
    runner = backends.get().open(save_layers(tmp_path), "lean", threads=1)
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
    assert np.array_equal(runner.run({"x": x})["y"], runner.run({"x": x.astype(">f4")})["y"])


def test_feeds_that_fit_are_accepted() -> None:
    check_feeds(TEXT, text_feeds())


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("ids", np.ones((2, 5), np.int32), r"ids: int64\[batch, sequence\] is expected, int32\[2, 5\] was given"),
        ("ids", np.ones(5, np.int64), r"int64\[5\] was given"),
        ("mask", np.ones((2, 6), np.int64), "'sequence' is 6 here and 5 in 'ids'"),
        ("scale", np.ones((7, 4), np.float32), "axis 1 must be 3"),
        ("scale", np.full((7, 3), np.nan, np.float32), "'scale' holds NaN"),
        ("scale", np.ones((0, 4), np.float32), "axis 1 must be 3"),
        ("scale", [[1.0, 2.0, 3.0]], "not a list"),
        ("extra", np.ones(1), "no input 'extra'; it expects ids: int64"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_with_what_was_expected(name: str, array: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_feeds(TEXT, text_feeds() | {name: array})  # type: ignore[dict-item]


def test_numbers_that_the_model_makes_itself_are_not_looked_at() -> None:
    feeds = text_feeds() | {"scale": np.full((7, 3), np.nan, np.float32)}
    made = made_in_place(feeds, {"scale_out": feeds["scale"], "other": feeds["scale"].copy()})
    assert made == {"scale"}
    check_feeds(TEXT, feeds, made=made)
    with pytest.raises(InputError, match="axis 1 must be 3"):
        check_feeds(TEXT, feeds | {"scale": np.ones((7, 4), np.float32)}, made=made)


def test_an_old_release_adds_to_no_past_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = backends.get().open(save_layers(tmp_path), "lean", threads=1)
    assert isinstance(runner, backends.WritingRunner)
    x = np.ones((1, 64), np.float32)
    monkeypatch.setattr("onnxruntime.__version__", "1.19.2")
    with pytest.raises(UnsupportedError, match=r"1\.19\.2 computes something else .* onnxruntime 1\.20 or later"):
        runner.run_into({"x": x}, {"y": x}, [])
    assert x.min() == x.max() == 1
    runner.run_into({"x": x}, {"y": np.empty_like(x)}, [])
    monkeypatch.setattr("onnxruntime.__version__", "1.20.0")
    runner.run_into({"x": x}, {"y": x}, [])
    assert x.max() != 1
    runner.close()


@pytest.mark.parametrize("axes", [(0, 5), (2, 0), (0, 0)])
def test_a_free_size_may_be_0(axes: tuple[int, int]) -> None:
    ids = np.ones(axes, np.int64)
    check_feeds(TEXT, {"ids": ids, "mask": ids, "scale": np.ones((0, 3), np.float32)})


def test_an_input_without_a_shape_takes_any_number_of_axes() -> None:
    spec = TensorSpec("x", "float32", None)
    assert str(spec) == "x: float32[any shape]"
    assert free_axes([spec]) == ()
    for shape in ((), (3,), (2, 0, 3)):
        check_feeds([spec], {"x": np.ones(shape, np.float32)})


def test_a_missing_input_is_named() -> None:
    feeds = text_feeds()
    del feeds["mask"]
    with pytest.raises(InputError, match="'mask' is missing"):
        check_feeds(TEXT, feeds)


def test_free_dimensions_that_share_a_name_count_once() -> None:
    assert free_axes(TEXT) == (("ids", 0), ("ids", 1), ("scale", 0))
    assert dims_of(free_axes(TEXT), text_feeds()) == {"ids:0": 2, "ids:1": 5, "scale:0": 7}


def test_dimensions_of_feeds_that_miss_an_input_or_an_axis_are_refused() -> None:
    with pytest.raises(InputError, match="'ids' is missing"):
        dims_of([("ids", 1)], {})
    with pytest.raises(InputError, match="more than 1 axes"):
        dims_of([("ids", 1)], {"ids": np.ones(4)})


def test_an_unknown_output_is_refused_with_those_there_are(tmp_path: Path) -> None:
    runner = backends.get().open(save_layers(tmp_path), "lean", threads=1)
    with pytest.raises(InputError, match="no output 'z'; it has y"):
        runner.run({"x": np.ones((1, 64), np.float32)}, ["z"])


def test_an_input_that_the_model_fails_on_is_an_input_error(tmp_path: Path) -> None:
    runner = backends.get().open(save_tokens(tmp_path, most=20), "lean", threads=1)
    ids = np.ones((1, 21), np.int64)
    with pytest.raises(InputError, match=r"can't run on ids: int64\[1, 21\]"):
        runner.run({"ids": ids, "mask": ids})


def test_an_operator_that_the_library_lacks_is_unsupported(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    save(tmp_path, [helper.make_node("Frobnicate", ["x"], ["y"])], [value], [result])
    with pytest.raises(UnsupportedError, match="Frobnicate"):
        backends.get().open(tmp_path, "fast")


def test_a_type_that_numpy_lacks_is_unsupported(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    save(tmp_path, [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], [value], [result])
    with pytest.raises(UnsupportedError, match="bfloat16"):
        backends.get().open(tmp_path, "fast")


def test_a_file_that_is_no_model_is_unsupported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(UnsupportedError) as caught:
        backends.get().open(tmp_path, "fast")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_unsupported_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="--assemble"):
        backends.get().open(tmp_path, "fast")


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnsupportedError, match="use one of onnxruntime"):
        backends.get("tpu")


def test_the_library_is_imported_only_when_a_model_is_opened() -> None:
    program = (
        "import sys; from seed_runtime import backends; engine = backends.get(); "
        "assert engine.available() and engine.import_bytes() > 0; assert 'onnxruntime' not in sys.modules; "
        "engine.load(); assert engine.import_bytes() == 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_failing_model_writes_nothing_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner = backends.get().open(save_tokens(tmp_path, most=4), "lean", threads=1)
    ids = np.ones((1, 5), np.int64)
    with pytest.raises(InputError):
        runner.run({"ids": ids, "mask": ids})
    assert capfd.readouterr().err == ""


def filler(folder: Path, shape: list[int | str] | None, *, handles_nan: bool = True, nested: bool = False) -> Path:
    """y is x with 0 for NaN; without `handles_nan` it is x."""
    check = helper.make_node("IsNaN", ["x"], ["missing"])
    if nested:
        x = helper.make_tensor_value_info("missing", TensorProto.BOOL, None)
        inner = [helper.make_graph([check], "inner", [], [x]) for _ in range(2)]
        check = helper.make_node("If", ["yes"], ["missing"], then_branch=inner[0], else_branch=inner[1])
    nodes = [check, helper.make_node("Where", ["missing", "zero", "x"], ["y"])]
    tensors = [
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0]),
        helper.make_tensor("yes", TensorProto.BOOL, [1], [True]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    return save(folder, nodes if handles_nan else [helper.make_node("Relu", ["x"], ["y"])], ends[:1], ends[1:], tensors)


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_that_handles_missing_values_is_given_nan(tmp_path: Path, nested: bool) -> None:
    runner = backends.get().open(filler(tmp_path, ["n"], nested=nested), "lean", threads=1)
    assert runner.run({"x": np.array([1, np.nan, 3], np.float32)})["y"].tolist() == [1, 0, 3]


def test_a_model_that_does_not_is_not(tmp_path: Path) -> None:
    runner = backends.get().open(filler(tmp_path, ["n"], handles_nan=False), "lean", threads=1)
    for ask in (runner.check, runner.run):
        with pytest.raises(InputError, match=r"'x' holds NaN, and no operator of the model takes NaN.*Imputer"):
            ask({"x": np.array([1, np.nan, 3], np.float32)})


@pytest.mark.parametrize("mode", MODES)
def test_an_input_whose_shape_is_not_stated_is_no_scalar(tmp_path: Path, mode: str) -> None:
    runner = backends.get().open(filler(tmp_path, None), mode, threads=1)
    assert runner.inputs == (TensorSpec("x", "float32", None),)
    for shape in ((), (2,), (2, 0, 3), (1, 2, 3)):
        assert runner.run({"x": np.ones(shape, np.float32)})["y"].shape == (shape or (1,))


def test_a_scalar_is_one(tmp_path: Path) -> None:
    runner = backends.get().open(filler(tmp_path, [], handles_nan=False), "lean", threads=1)
    assert runner.inputs == (TensorSpec("x", "float32", ()),)
    with pytest.raises(InputError, match=r"x: float32\[\] is expected"):
        runner.run({"x": np.ones(3, np.float32)})


def test_names_that_say_nothing_share_no_size(tmp_path: Path) -> None:
    shapes = {"a": ["unk__1", "None"], "b": ["unk__1", "None"]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    folder = save(tmp_path, [helper.make_node("MatMul", ["a", "b"], ["y"])], inputs, outputs)
    runner = backends.get().open(folder, "lean", threads=1)
    assert runner.inputs[0].shape == (None, None)
    assert runner.run({"a": np.ones((2, 3), np.float32), "b": np.ones((3, 4), np.float32)})["y"].shape == (2, 4)
