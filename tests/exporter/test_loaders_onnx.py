"""ONNX files in, a graph and its weights out: nothing lost, nothing stored twice, the same outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.graph import Graph
from seed_exporter.loaders import load
from seed_exporter.loaders.runnable import check_runnable, to_model_file
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.format.dtypes import BY_NAME

RNG = np.random.default_rng(7)
W = RNG.standard_normal((16, 16)).astype(np.float32)
V = RNG.standard_normal((16, 16)).astype(np.float32)
X = {"x": RNG.standard_normal((3, 16)).astype(np.float32)}


def info(name: str, shape: Sequence[int | str | None] | None = (None, 16), code: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, code, shape)


def make(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 17,
    ir: int = 8,
    domains: Sequence[str] = (),
    **rest,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [info("x")] if inputs is None else inputs, outputs or [info("y", None)], initializers
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, **rest)


def tensor(data: np.ndarray, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(data, name)


def constant(data: np.ndarray, name: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor(data, ""))


def run(model: str | Path | bytes, feeds=X) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def check_same(model: onnx.ModelProto, folder: Path, feeds=X) -> Graph:
    """Load `model`, rebuild it and compare outputs bit for bit."""
    graph = load(model)
    check_runnable(graph)
    for ours, theirs in zip(
        run(to_model_file(graph, folder), feeds), run(model.SerializeToString(), feeds), strict=True
    ):
        assert np.array_equal(ours, theirs)
    return graph


def test_initializers_become_weights_and_small_ones_stay(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    graph = check_same(make(nodes, [tensor(W, "w"), tensor(V[0], "b")]), tmp_path)
    assert list(graph.weights) == ["w"]
    weight = graph.weights["w"]
    assert np.array_equal(weight.data, W)
    assert (weight.shape, weight.dtype.name, weight.size) == ((16, 16), "float32", 1024)
    assert [(use.op, use.index) for use in weight.uses] == [("MatMul", 1)]
    held = {each.name: each for each in graph.model.graph.initializer}
    assert not held["w"].raw_data
    assert held["b"].raw_data == V[0].tobytes()


def test_weights_in_constant_nodes_become_initializers(tmp_path: Path):
    nodes = [
        constant(W, "w"),
        helper.make_node("Constant", [], ["s"], value_float=0.5),
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Mul", ["t", "s"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert list(graph.weights) == ["w"]
    assert [node.op_type for node in graph.model.graph.node] == ["MatMul", "Mul"]


def test_a_constant_that_is_an_output_stays_one(tmp_path: Path):
    nodes = [constant(W, "z"), helper.make_node("MatMul", ["x", "z"], ["y"])]
    graph = check_same(make(nodes, outputs=[info("y", None), info("z", None)]), tmp_path)
    assert len(graph.weights) == 1


def test_external_data_is_mapped_from_beside_the_model(tmp_path: Path):
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")])
    expected = run(model.SerializeToString())
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = load(path)
    assert np.array_equal(graph.weights["w"].data, W)
    rebuilt = tmp_path / "rebuilt"
    rebuilt.mkdir()
    assert np.array_equal(run(to_model_file(graph, rebuilt))[0], expected[0])


def external(location: str, offset: int = 0, dims: Sequence[int] = (16, 16)) -> onnx.TensorProto:
    out = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset))):
        out.external_data.add(key=key, value=value)
    return out


@pytest.mark.parametrize(
    ("location", "offset", "problem"),
    [
        ("../w.bin", 0, "not below"),
        ("/etc/passwd", 0, "not below"),
        ("C:\\w.bin", 0, "not below"),
        ("..\\w.bin", 0, "not below"),
        ("link.bin", 0, "not below"),
        ("", 0, "not below"),
        ("nowhere.bin", 0, "missing"),
        ("w.bin", 8, "does not hold"),
        ("w.bin", -8, "does not hold"),
    ],
)
def test_external_data_elsewhere_or_cut_is_refused(tmp_path: Path, location: str, offset: int, problem: str):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(W.tobytes())
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = folder / "model.onnx"
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [external(location, offset)])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match=problem):
        load(path)


def test_a_hub_cache_that_links_model_and_data_is_read(tmp_path: Path):
    blobs, links = tmp_path / "blobs", tmp_path / "links"
    blobs.mkdir()
    links.mkdir()
    model = make([helper.make_node("MatMul", ["x", "w"], ["y"])], [external("w.bin")])
    (blobs / "1").write_bytes(model.SerializeToString())
    (blobs / "2").write_bytes(W.tobytes())
    (links / "model.onnx").symlink_to(blobs / "1")
    (links / "w.bin").symlink_to(blobs / "2")
    assert np.array_equal(load(links / "model.onnx").weights["w"].data, W)


@pytest.mark.slow
def test_models_over_two_gigabytes_are_loaded_without_reading_them(tmp_path: Path):
    rows = 200 << 20
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(4 * 4 * rows)  # one hole: no disk is used
    model = make(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        [external("w.bin", dims=(rows, 4))],
        inputs=[info("x", ["n"], TensorProto.INT64)],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    graph = load(path)
    assert graph.distinct_bytes == 16 * rows > 1 << 31
    assert graph.weights["w"].matrix_view() == (rows, 4)
    check_runnable(graph)


@pytest.mark.parametrize(
    ("code", "field", "values", "expected"),
    [
        (TensorProto.FLOAT, "float_data", [1.5, -2.0], np.array([1.5, -2], "<f4")),
        (TensorProto.DOUBLE, "double_data", [1.5, -2.0], np.array([1.5, -2], "<f8")),
        (TensorProto.INT64, "int64_data", [1, -2], np.array([1, -2], "<i8")),
        (TensorProto.UINT64, "uint64_data", [1, 1 << 63], np.array([1, 1 << 63], "<u8")),
        (TensorProto.UINT32, "uint64_data", [1, 1 << 31], np.array([1, 1 << 31], "<u4")),
        (TensorProto.INT32, "int32_data", [1, -2], np.array([1, -2], "<i4")),
        (TensorProto.INT16, "int32_data", [1, -2], np.array([1, -2], "<i2")),
        (TensorProto.INT8, "int32_data", [1, -2], np.array([1, -2], "i1")),
        (TensorProto.UINT8, "int32_data", [1, 255], np.array([1, 255], "u1")),
        (TensorProto.BOOL, "int32_data", [1, 0], np.array([1, 0], "u1")),
        (TensorProto.FLOAT16, "int32_data", [0x3C00, 0xC000], np.array([1, -2], "<f2")),
        (TensorProto.BFLOAT16, "int32_data", [0x3F80, 0xC000], np.array([0x3F80, 0xC000], "<u2")),
        (TensorProto.FLOAT8E5M2, "int32_data", [0x3C, 0xC0], np.array([0x3C, 0xC0], "u1")),
        (TensorProto.INT4, "int32_data", [0xE1, 0x2F], np.array([0xE1, 0x2F], "u1")),
    ],
)
def test_typed_fields_give_the_same_bits_as_raw_data(
    code: int, field: str, values: list, expected: np.ndarray
):
    dtype = next(each for each in BY_NAME.values() if each.code == code)
    repeat = 256
    held = TensorProto(
        name="w", data_type=code, dims=[expected.size * repeat * (2 if dtype.bits == 4 else 1)]
    )
    getattr(held, field).extend(values * repeat)
    graph = load(make([helper.make_node("Cast", ["w"], ["y"], to=1)], [held], opset=21, ir=10))
    weight = graph.weights["w"]
    assert weight.data.tobytes() == expected.tobytes() * repeat
    assert weight.data.dtype == dtype.storage
    assert weight.size == weight.data.nbytes


def test_four_bit_weights_stay_packed_and_run(tmp_path: Path):
    held = TensorProto(name="w", data_type=TensorProto.INT4, dims=[33, 33], raw_data=RNG.bytes(545))
    scale, zero = (
        tensor(np.array(0.5, np.float32), "s"),
        TensorProto(name="z", data_type=TensorProto.INT4, raw_data=b"\1"),
    )
    model = make(
        [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])], [held, scale, zero], opset=21, ir=10
    )
    graph = check_same(model, tmp_path, {"x": X["x"]})
    assert graph.weights["w"].data.shape == (545,)
    assert graph.weights["w"].matrix_view() == (33, 33)


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


def test_tied_copies_are_stored_once(tmp_path: Path):
    nodes = [
        constant(W, "copy"),
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "copy"], ["y"]),
    ]
    graph = check_same(make(nodes, [tensor(W, "w")]), tmp_path)
    assert list(graph.weights) == ["w"]
    assert len(graph.weights["w"].uses) == 2


def test_bits_decide_what_is_a_copy(tmp_path: Path):
    nan, zero = W.copy(), W.copy()
    nan[0, 0] = np.nan
    zero[0, 0] = 0.0
    minus = zero.copy()
    minus[0, 0] = -0.0
    names = ["nan", "nan again", "zero", "minus"]
    nodes = [helper.make_node("Sum", names, ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    model = make(
        nodes, [tensor(each, name) for each, name in zip([nan, nan, zero, minus], names, strict=True)]
    )
    assert list(load(model).weights) == ["nan", "zero", "minus"]


def test_small_constants_that_repeat_are_stored_once(tmp_path: Path):
    half = np.array(0.5, np.float32)
    nodes = [
        constant(half, "a"),
        constant(half, "b"),
        helper.make_node("Mul", ["x", "a"], ["t"]),
        helper.make_node("Mul", ["t", "b"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert len(graph.model.graph.initializer) == 1


def test_a_tied_embedding_that_was_transposed_is_stored_once(tmp_path: Path):
    table = RNG.standard_normal((300, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["t"]),
        helper.make_node("MatMul", ["t", "head"], ["y"]),
    ]
    model = make(
        nodes,
        # The copy comes first: the table must stay all the same, as its rows are read one by one.
        [tensor(np.ascontiguousarray(table.T), "head"), tensor(table, "table")],
        inputs=[info("x", ["n"], TensorProto.INT64)],
    )
    graph = check_same(model, tmp_path, {"x": np.array([3, 250])})
    assert list(graph.weights) == ["table"]
    assert graph.weights["table"].matrix_view() == (300, 16)
    assert [node.op_type for node in graph.model.graph.node] == ["Transpose", "Gather", "MatMul"]


def test_a_reshaped_copy_is_made_from_the_one_that_stays(tmp_path: Path):
    big = RNG.standard_normal((16, 128)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    model = make(nodes, [tensor(big, "w"), tensor(big.reshape(128, 16), "v")])
    graph = check_same(model, tmp_path)
    assert list(graph.weights) == ["w"]


def test_transposed_quantized_weights_keep_both_copies(tmp_path: Path):
    codes = RNG.integers(-127, 127, (16, 300)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("DequantizeLinear", ["r", "s"], ["v"]),
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    held = [
        tensor(codes, "q"),
        tensor(np.ascontiguousarray(codes.T), "r"),
        tensor(np.array(0.1, np.float32), "s"),
    ]
    assert list(check_same(make(nodes, held), tmp_path).weights) == ["q", "r"]


def branch(name: str, data: np.ndarray, *, as_initializer: bool = False) -> onnx.GraphProto:
    """A branch of If that multiplies by its own weight, always called `inner`."""
    nodes = [] if as_initializer else [constant(data, "inner")]
    nodes.append(helper.make_node("MatMul", ["x", "inner"], [name]))
    return helper.make_graph(
        nodes, name, [], [info(name, None)], [tensor(data, "inner")] if as_initializer else []
    )


def test_weights_of_branches_with_one_name_are_kept_apart(tmp_path: Path):
    flags = [constant(np.array(True), "yes"), constant(np.array(False), "no")]
    nodes = [
        *flags,
        helper.make_node("If", ["yes"], ["a"], then_branch=branch("t1", W), else_branch=branch("e1", V)),
        helper.make_node(
            "If",
            ["no"],
            ["b"],
            then_branch=branch("t2", W, as_initializer=True),
            else_branch=branch("e2", V + 1, as_initializer=True),
        ),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert sorted(weight.data[0, 0] for weight in graph.weights.values()) == sorted(
        [W[0, 0], V[0, 0], (V + 1)[0, 0]]
    )


def test_a_branch_that_returns_its_weight_still_does(tmp_path: Path):
    outer = []
    for name, data in (("then", W), ("else", V)):
        outer.append(
            helper.make_graph([constant(data, f"{name}_out")], name, [], [info(f"{name}_out", None)])
        )
    nodes = [
        constant(np.array(False), "no"),
        helper.make_node("If", ["no"], ["w"], then_branch=outer[0], else_branch=outer[1]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    assert len(check_same(make(nodes), tmp_path).weights) == 2


def test_weights_in_a_loop_within_a_branch_are_found(tmp_path: Path):
    body = helper.make_graph(
        [
            constant(W, "w"),
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state", None)],
        [info("go_on", [], TensorProto.BOOL), info("next", None)],
    )
    loop = [
        constant(np.array(2), "times"),
        constant(np.array(True), "go0"),
        helper.make_node("Loop", ["times", "go0", "x"], ["then_out"], body=body),
    ]
    nodes = [
        constant(np.array(True), "yes"),
        helper.make_node(
            "If",
            ["yes"],
            ["y"],
            then_branch=helper.make_graph(loop, "then", [], [info("then_out", None)]),
            else_branch=branch("else_out", V),
        ),
    ]
    graph = check_same(make(nodes), tmp_path)
    assert len(graph.weights) == 2
    assert all(weight.uses[0].op == "MatMul" for weight in graph.weights.values())


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
    model = make(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor(W, "w")], inputs=[info("x", (-1, 16))]
    )
    graph = check_same(model, tmp_path)
    assert not graph.model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 20, 21])
def test_every_opset_that_onnx_runtime_runs_is_taken(tmp_path: Path, opset: int):
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    graph = check_same(make(nodes, [tensor(W, "w"), tensor(V[0], "b")], opset=opset), tmp_path)
    assert graph.weights["w"].uses[0].attributes == {"transB": 1}
    assert graph.weights["w"].output_axis == 0


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
def test_rows_for_coding_follow_the_use(
    op: str, inputs: list[str], shape: tuple[int, ...], attributes, view, axis
):
    held = tensor(np.zeros(shape, np.float32), "w")
    weight = load(make([helper.make_node(op, inputs, ["y"], **attributes)], [held])).weights["w"]
    assert weight.matrix_view() == view
    assert weight.output_axis == axis
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
    rebuilt = to_model_file(graph, tmp_path)
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
