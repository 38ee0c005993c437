"""ONNX files of every kind and age in, a graph out that computes the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.matrix import matrix_view, output_axis
from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.onnx_models import V, W, X, check_same, constant, info, make, run, tensor


def test_initializers_become_weights_and_small_ones_stay(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    graph = check_same(make(nodes, [tensor(W, "w"), tensor(V[0, :1], "b")]), tmp_path)
    assert list(graph.weights) == ["w"]
    weight = graph.weights["w"]
    assert np.array_equal(weight.data, W)
    assert (weight.shape, weight.dtype.name, weight.size) == ((16, 16), "float32", 1024)
    assert [(use.op, use.index) for use in weight.uses] == [("MatMul", 1)]
    held = {each.name: each for each in graph.model.graph.initializer}
    assert not held["w"].raw_data
    assert held["b"].raw_data == V[0, :1].tobytes()


def test_weights_in_functions_are_found(tmp_path: Path):
    body = [constant(W, "w"), helper.make_node("MatMul", ["a", "w"], ["b"])]
    function = helper.make_function("mine", "Layer", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Layer", ["x"], ["t"], domain="mine"),
        helper.make_node("Layer", ["t"], ["y"], domain="mine"),
    ]
    graph = check_same(make(nodes, domains=["mine"], functions=[function]), tmp_path)
    assert len(graph.weights) == 1
    assert not graph.model.functions


def test_old_models_whose_weights_are_inputs_keep_only_true_inputs(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = make(nodes, [tensor(W, "w")], inputs=[info("x"), info("w", (16, 16))], ir=3, opset=7)
    graph = check_same(model, tmp_path)
    assert [value.name for value in graph.model.graph.input] == ["x"]


def with_gain(listed: Sequence[onnx.ValueInfoProto] = (info("gain", (1,)),), **options) -> onnx.ModelProto:
    """Make y = (x @ w) * gain * one, where `listed` initializers are inputs as well."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "gain"], ["g"]),
        helper.make_node("Mul", ["g", "one"], ["y"]),
    ]
    one = np.ones(1, np.float32)
    return make(
        nodes, [tensor(W, "w"), tensor(one, "one"), tensor(one, "gain")], inputs=[info("x"), *listed], **options
    )


def test_an_input_with_a_default_stays_one(tmp_path: Path):
    graph = check_same(with_gain(), tmp_path)
    assert [value.name for value in graph.model.graph.input] == ["x", "gain"]
    assert list(graph.weights) == ["w"]
    assert not graph.notes
    # The equal constant `one` may not be fed with it.
    feeds = {**X, "gain": np.full(1, 3, np.float32)}
    check_same(with_gain(), tmp_path, feeds)


def test_a_default_that_nothing_reads_stays_with_its_input(tmp_path: Path):
    model = with_gain([info("gain", (1,)), info("idle", (32, 1))])
    model.graph.initializer.append(tensor(np.ones((32, 1), np.float32), "idle"))
    assert check_same(model, tmp_path).model.graph.initializer[-1].name == "idle"


def test_a_default_in_another_file_stays_an_input(tmp_path: Path):
    onnx.save(with_gain(), tmp_path / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    graph = load(tmp_path / "model.onnx")
    check_runnable(graph)
    assert [value.name for value in graph.model.graph.input] == ["x", "gain"]


def test_weights_that_an_exporter_listed_as_inputs_are_weights_and_it_is_told(tmp_path: Path):
    graph = check_same(with_gain([info("w", (16, 16)), info("one", (1,)), info("gain", (1,))]), tmp_path)
    assert [value.name for value in graph.model.graph.input] == ["x"]
    assert graph.notes == ("3 inputs have defaults that are taken for weights ('w', 'one', 'gain'): they can't be fed",)
    model = with_gain([info("gain", (1,)), info("large", (600_000,))])
    model.graph.initializer.append(tensor(np.ones(600_000, np.float32), "large"))
    graph = check_same(model, tmp_path)
    assert [value.name for value in graph.model.graph.input] == ["x", "gain"]
    assert graph.notes == ("the input 'large' has a default that is taken for a weight: it can't be fed",)


def test_what_nothing_reads_is_dropped(tmp_path: Path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("MatMul", ["x", "dead"], ["t"]),
        helper.make_node("Relu", ["t"], ["nowhere"]),
    ]
    graph = check_same(make(nodes, [tensor(W, "w"), tensor(V, "dead"), tensor(V, "unused")]), tmp_path)
    assert list(graph.weights) == ["w"]
    assert len(graph.model.graph.node) == 1


def test_dimensions_of_minus_one_are_free(tmp_path: Path):
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")], inputs=[info("x", (-1, 16))])
    graph = check_same(model, tmp_path)
    assert not graph.model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 20, 21])
def test_every_opset_that_onnx_runtime_runs_is_taken(tmp_path: Path, opset: int):
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    graph = check_same(make(nodes, [tensor(W, "w"), tensor(V[0], "b")], opset=opset), tmp_path)
    assert graph.weights["w"].uses[0].attributes == {"transB": 1}
    assert output_axis(graph.weights["w"]) == 0


def test_tensors_without_numbers_stay_in_the_model(tmp_path: Path):
    words = helper.make_tensor("words", TensorProto.STRING, [64], [f"word{i}".encode() for i in range(64)])
    nodes = [helper.make_node("Gather", ["words", "x"], ["y"])]
    model = make(
        nodes,
        [words],
        inputs=[info("x", ["n"], TensorProto.INT64)],
        outputs=[info("y", None, TensorProto.STRING)],
    )
    graph = check_same(model, tmp_path, {"x": np.array([3, 5])})
    assert not graph.weights


def test_four_bit_weights_stay_packed_and_run(tmp_path: Path, rng: np.random.Generator):
    held = TensorProto(name="w", data_type=TensorProto.INT4, dims=[33, 33], raw_data=rng.bytes(545))
    scale, zero = (
        tensor(np.array(0.5, np.float32), "s"),
        TensorProto(name="z", data_type=TensorProto.INT4, raw_data=b"\1"),
    )
    model = make([helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])], [held, scale, zero], opset=21, ir=10)
    graph = check_same(model, tmp_path, {"x": X["x"]})
    assert graph.weights["w"].data.shape == (545,)
    assert matrix_view(graph.weights["w"]) == (33, 33)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(100), b"\x08\x08\x3a\xff\xff"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UnsupportedError):
        load(path)


def test_a_cut_model_is_refused(tmp_path: Path):
    whole = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")]).SerializeToString()
    path = tmp_path / "model.onnx"
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(UnsupportedError):
            check_runnable(load(path))


def test_a_cut_model_says_how_much_is_missing(tmp_path: Path):
    whole = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")]).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole[:-50])
    with pytest.raises(UnsupportedError, match=r"is cut, the last [\d,]+ bytes or more are missing; copy it again"):
        load(tmp_path / "model.onnx")


def test_a_file_over_two_gigabytes_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "model.onnx").open("wb") as file:
        file.write(b"\x08\x08")
        file.truncate(1 << 31)
    with pytest.raises(UnsupportedError, match="holds at most 2,147,483,647; save the weights beside it"):
        load(tmp_path / "model.onnx")


def test_the_callers_model_is_left_as_it_was():
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")])
    before = model.SerializeToString(deterministic=True)
    load(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magika", "minilm6", "efflite0", "pprec", "ppdet", "ppcls", "basicpitch"])
def test_public_models_give_identical_outputs(tmp_path: Path, name: str, rng: np.random.Generator):
    cache = Path(os.environ.get("SEED_BENCH_CACHE") or Path.home() / ".cache/seed-bench")
    path = cache / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{path} is missing; run: python -m bench.public prepare {name}")
    graph = load(path)
    check_runnable(graph)
    rebuilt = write_model_files(graph, tmp_path)
    feeds = {}
    for each in ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs():
        free = {"magika": [2, 2048], "minilm6": [2, 64], "ppdet": [1, 3, 64, 320]}.get(name, [1, 3, 48, 320])
        shape = [size if isinstance(size, int) else free[axis] for axis, size in enumerate(each.shape)]
        if each.type == "tensor(float)":
            feeds[each.name] = rng.standard_normal(shape).astype(np.float32)
        else:
            kind = np.int64 if each.type == "tensor(int64)" else np.int32
            feeds[each.name] = rng.integers(0, 2, shape).astype(kind)
    for ours, theirs in zip(run(rebuilt, feeds), run(path, feeds), strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)
