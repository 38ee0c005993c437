"""Models of every kind and age are taken; what can't be taken is refused with its reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.matrix import matrix_view, output_axis
from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError, UsageError
from tests.exporter.support.onnx_models import RNG, V, W, check_same, constant, info, make, run, tensor


def test_sparse_weights_are_made_dense(tmp_path: Path):
    values, places = tensor(np.array([2.0, 3.0], np.float32), "w"), tensor(np.array([17, 40]), "i")
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], ir=8)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [16, 16]))
    assert np.flatnonzero(load(model).weights["w"].data).tolist() == [17, 40]
    twin = helper.make_sparse_tensor(values, tensor(np.array([[1, 1], [2, 8]]), "i"), [16, 16])
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=twin),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert np.flatnonzero(graph.weights["w"].data).tolist() == [17, 40]


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


def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Frobnicate", ["t"], ["y"], domain="my.domain", name="layer7"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        check_runnable(load(make(nodes, [tensor(W, "w")], domains=["my.domain"])))
    assert all(part in str(caught.value) for part in ("Frobnicate", "my.domain", "layer7"))
    assert "\n" not in str(caught.value)


def test_a_type_that_an_operator_lacks_is_named(tmp_path: Path):
    inputs = [info("x", ["n"], TensorProto.UINT16)]
    nodes = [helper.make_node("Sin", ["x"], ["y"], name="wave")]
    with pytest.raises(UnsupportedError, match="Sin"):
        check_runnable(load(make(nodes, inputs=inputs, outputs=[info("y", None, TensorProto.UINT16)])))


def test_an_invalid_model_is_refused():
    with pytest.raises(UnsupportedError):
        check_runnable(load(make([helper.make_node("MatMul", ["x", "nowhere"], ["y"])])))


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


def test_data_of_the_wrong_size_is_refused():
    held = TensorProto(name="w", data_type=1, dims=[16, 16], raw_data=bytes(1000))
    with pytest.raises(UnsupportedError, match="1,000 bytes"):
        load(make([helper.make_node("MatMul", ["x", "w"], ["y"])], [held]))


def test_what_is_no_model_at_all_is_a_mistake_in_use(tmp_path: Path):
    for source in ("nowhere.onnx", tmp_path / "model.bin", "model", 3, None):
        with pytest.raises(UsageError):
            load(source)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    from seed_exporter import loaders

    def missing(name: str):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(loaders.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'seed-runtime\[export\]'"):
        load("model.onnx")


def test_the_callers_model_is_left_as_it_was():
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")])
    before = model.SerializeToString(deterministic=True)
    load(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "attributes", "view", "axis"),
    [
        ("Conv", ["x", "w"], (8, 4, 3, 3), {}, (8, 36), 0),
        ("ConvTranspose", ["x", "w"], (8, 4, 3, 3), {}, (8, 36), 1),
        ("Gemm", ["x", "w"], (8, 32), {"transB": 1}, (8, 32), 0),
        ("Gemm", ["x", "w"], (8, 32), {}, (8, 32), 1),
        ("MatMul", ["x", "w"], (4, 8, 32), {}, (32, 32), 2),
        ("MatMul", ["w", "x"], (8, 32), {}, (8, 32), 0),
        ("Gather", ["w", "x"], (8, 4, 8), {}, (8, 32), 0),
        ("LSTM", ["x", "w"], (2, 8, 16), {}, (16, 16), None),
        ("Add", ["x", "w"], (128,), {}, (1, 128), None),
        ("Add", ["x", "w"], (1, 128, 1, 1), {}, (1, 128), None),
    ],
)
def test_rows_for_coding_follow_the_use(op: str, inputs: list[str], shape: tuple[int, ...], attributes, view, axis):
    held = tensor(np.zeros(shape, np.float32), "w")
    weight = load(make([helper.make_node(op, inputs, ["y"], **attributes)], [held])).weights["w"]
    assert matrix_view(weight) == view
    assert output_axis(weight) == axis
    assert weight.data.reshape(view).flags.c_contiguous


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magika", "minilm6", "efflite0", "pprec", "ppdet", "ppcls", "basicpitch"])
def test_public_models_give_identical_outputs(tmp_path: Path, name: str):
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
            feeds[each.name] = RNG.standard_normal(shape).astype(np.float32)
        else:
            kind = np.int64 if each.type == "tensor(int64)" else np.int32
            feeds[each.name] = RNG.integers(0, 2, shape).astype(kind)
    for ours, theirs in zip(run(rebuilt, feeds), run(path, feeds), strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)
