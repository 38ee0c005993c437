"""Skeletons that the exporter builds: small, the same every time, accepted by a device, equal in effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.skeletons import builder_for
from seed_exporter.skeletons import onnx as onnx_skeleton
from seed_runtime.errors import UnsupportedError
from seed_runtime.skeletons import check_holes
from seed_runtime.skeletons.onnx import scan

RNG = np.random.default_rng(3)


def info(name: str, shape=("n", 16), code: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, shape)


def weights(*shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), f"w{i}")
        for i, shape in enumerate(shapes)
    ]


def make(nodes, initializers, inputs=None, outputs=None, **rest) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "a long name", inputs or [info("x")], outputs or [info("y", None)], initializers, **rest
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layers(count: int = 3) -> onnx.ModelProto:
    values = ["x", *(f"layers.{i}/MatMul_output_0" for i in range(count - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]], name=f"/layers.{i}/MatMul")
        for i in range(count)
    ]
    shapes = [(16, 17), *[(17, 17)] * (count - 2), (17, 5)]
    return make(nodes, weights(*shapes))


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_holes_follow_the_order_and_are_aligned():
    built = builder_for(load(layers())).build(["w2", "w0", "w1"])
    assert [hole.name for hole in built.holes] == ["w2", "w0", "w1"]
    assert [hole.size for hole in built.holes] == [17 * 5 * 4, 16 * 17 * 4, 17 * 17 * 4]
    end = 0
    for hole in built.holes:
        assert hole.offset == end + hole.skip
        assert hole.offset % 64 == 0
        assert 0 <= hole.skip < 64
        end = hole.offset + hole.size
    assert built.weights_size == end


def test_a_device_reads_what_was_built():
    built = builder_for(load(layers())).build(["w2", "w0", "w1"])
    read = scan(built.data)
    assert check_holes(read, built.holes) == ("w2", "w0", "w1")
    assert [value.name for value in read.inputs] == ["x"]
    assert read.inputs[0].dims == ("n", 16)
    assert [value.name for value in read.outputs] == ["y"]


def test_an_order_that_forgets_or_repeats_a_weight_is_a_mistake():
    graph = load(layers())
    for order in (["w0", "w1"], ["w0", "w1", "w1"], ["w0", "w1", "w2", "w2"], ["w0", "w1", "other"]):
        with pytest.raises(ValueError, match="once"):
            builder_for(graph).build(order)


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was():
    model = layers()
    graph = load(model)
    before = graph.model.SerializeToString(deterministic=True)
    first = builder_for(graph).build(list(graph.weights)).data
    assert graph.model.SerializeToString(deterministic=True) == before
    again = load(onnx.ModelProto.FromString(model.SerializeToString()))
    assert builder_for(again).build(list(again.weights)).data == first


def test_texts_for_people_are_left_out():
    model = layers()
    model.doc_string = model.graph.doc_string = "SECRET"
    model.producer_name = "SECRET"
    model.metadata_props.add(key="SECRET", value="SECRET")
    model.graph.metadata_props.add(key="SECRET", value="SECRET")
    model.graph.input[0].doc_string = "SECRET"
    model.graph.input[0].type.denotation = "SECRET"
    value = numpy_helper.from_array(np.zeros(1, np.float32), "SECRET")
    value.doc_string = "SECRET"
    model.graph.initializer[0].doc_string = "SECRET"
    for node in model.graph.node:
        node.name = "SECRET"
        node.doc_string = "SECRET"
        node.metadata_props.add(key="SECRET", value="SECRET")
    model.opset_import.add(domain="SECRET", version=1)
    graph = load(model)
    assert b"SECRET" not in builder_for(graph).build(list(graph.weights)).data


def test_names_of_inputs_outputs_and_weights_stay_and_others_become_short(tmp_path: Path):
    model = layers(5)
    graph = load(model)
    built = onnx.ModelProto.FromString(builder_for(graph).build(list(graph.weights)).data)
    assert {tensor.name for tensor in built.graph.initializer} == {f"w{i}" for i in range(5)}
    assert [node.output[0] for node in built.graph.node] == ["0", "1", "2", "3", "y"]


def test_short_names_never_meet_names_that_stay(tmp_path: Path):
    # The weights are called what the values in between would become.
    nodes = [
        helper.make_node("MatMul", ["1", "0"], ["middle"]),
        helper.make_node("MatMul", ["middle", "0"], ["2"]),
    ]
    held = numpy_helper.from_array(RNG.standard_normal((16, 16)).astype(np.float32), "0")
    model = make(nodes, [held], inputs=[info("1")], outputs=[info("2", None)])
    graph = load(model)
    x = {"1": np.ones((2, 16), np.float32)}
    rebuilt = ort.InferenceSession(write_model_files(graph, tmp_path)).run(None, x)[0]
    assert np.array_equal(rebuilt, ort.InferenceSession(model.SerializeToString()).run(None, x)[0])


def test_numbers_in_base_62_are_all_different():
    names = [onnx_skeleton._count(number) for number in range(10_000)]
    assert len(set(names)) == 10_000
    assert max(map(len, names)) == 3


def test_nested_graphs_read_the_same_values_after_renaming(tmp_path: Path):
    def branch(value: float, name: str) -> onnx.GraphProto:
        # Both branches call their own value `t`, and both read `h` from outside.
        nodes = [
            helper.make_node("Constant", [], ["t"], value_float=value),
            helper.make_node("Mul", ["h", "t"], [name]),
        ]
        return helper.make_graph(nodes, name, [], [info(name, None)])

    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch(2.0, "a"), else_branch=branch(3.0, "b")),
    ]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    model = make(nodes, [*weights((16, 16)), zero])
    original = tmp_path / "original.onnx"
    onnx.save(model, original)
    rebuilt = write_model_files(load(model), tmp_path)
    for sign in (1, -1):
        x = sign * RNG.standard_normal((2, 16)).astype(np.float32)
        assert np.array_equal(run(rebuilt, x), run(original, x))


def reshaping(stated: bool) -> onnx.ModelProto:
    """A Reshape to a computed shape: inference finds nothing behind it, so only stated shapes tell."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["h", "s"], ["r"]),
        helper.make_node("Relu", ["r"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    known = [info(name) for name in ("h", "r", "a", "b")] if stated else []
    return make(nodes, weights((16, 16), (16, 5)), value_info=known)


def test_only_shapes_that_inference_misses_are_stated():
    graph = load(reshaping(stated=True))
    built = onnx.ModelProto.FromString(builder_for(graph).build(list(graph.weights)).data)
    reshape = next(node for node in built.graph.node if node.op_type == "Reshape")
    assert [value.name for value in built.graph.value_info] == [reshape.output[0]]
    graph = load(reshaping(stated=False))
    assert not onnx.ModelProto.FromString(builder_for(graph).build(list(graph.weights)).data).graph.value_info


def test_a_rebuilt_model_passes_the_onnx_checker(tmp_path: Path):
    model = layers()
    model.graph.output[0].CopyFrom(info("y", ("n", 5)))
    onnx.checker.check_model(str(write_model_files(load(model), tmp_path)), full_check=True)


def test_other_weights_can_be_put_in_by_name_or_one_at_a_time(tmp_path: Path):
    graph = load(layers())
    zeros = {name: np.zeros(weight.shape, np.float32) for name, weight in graph.weights.items()}
    x = np.ones((2, 16), np.float32)
    assert not run(write_model_files(graph, tmp_path, zeros), x).any()
    assert not run(write_model_files(graph, tmp_path, lambda weight: zeros[weight.name]), x).any()
    assert run(write_model_files(graph, tmp_path), x).any()
    with pytest.raises(ValueError, match="takes"):
        write_model_files(graph, tmp_path, lambda weight: np.zeros(3, np.float32))


def test_a_model_without_weights_is_a_skeleton_too(tmp_path: Path):
    graph: Graph = load(make([helper.make_node("Relu", ["x"], ["y"])], []))
    built = builder_for(graph).build([])
    assert (built.holes, built.weights_size) == ([], 0)
    assert run(write_model_files(graph, tmp_path), np.ones((1, 16), np.float32)).all()


def test_what_no_device_accepts_is_refused_at_export():
    deep = numpy_helper.from_array(np.zeros((2,) * 9, np.float32), "w0")
    graph = load(make([helper.make_node("Add", ["x", "w0"], ["y"])], [deep]))
    with pytest.raises(UnsupportedError, match="9 axes"):
        builder_for(graph).build(["w0"])
    graph = load(make([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")], []))
    with pytest.raises(UnsupportedError, match="EPContext"):
        builder_for(graph).build([])
    strings = helper.make_tensor("w0", TensorProto.STRING, [200], [b"a" * 100_000] * 200)
    graph = load(make([helper.make_node("Gather", ["w0", "x"], ["y"])], [strings]))
    with pytest.raises(UnsupportedError, match="no device would accept"):
        builder_for(graph).build([])
