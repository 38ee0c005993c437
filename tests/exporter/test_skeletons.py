"""Skeletons that the exporter builds: small, the same every time, accepted by a device, equal in effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.skeletons import builder_for
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.parts.onnx_skeleton import initializers
from seed_runtime.skeletons import check_holes
from seed_runtime.skeletons.onnx import scan
from tests.exporter.support.onnx_models import W, X, info, make, matmul_chain, run, tensor, weights


def test_holes_follow_the_order_and_are_aligned():
    built = builder_for(load(matmul_chain())).build(["w2", "w0", "w1"])
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
    built = builder_for(load(matmul_chain())).build(["w2", "w0", "w1"])
    read = scan(built.data)
    assert check_holes(read, built.holes) == ("0", "1", "2")
    assert [value.name for value in read.inputs] == ["x"]
    assert read.inputs[0].dims == ("n", 16)
    assert [value.name for value in read.outputs] == ["y"]


def test_an_order_that_forgets_or_repeats_a_weight_is_a_mistake():
    graph = load(matmul_chain())
    for order in (["w0", "w1"], ["w0", "w1", "w1"], ["w0", "w1", "w2", "w2"], ["w0", "w1", "other"]):
        with pytest.raises(ValueError, match="once"):
            builder_for(graph).build(order)


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was():
    model = matmul_chain()
    graph = load(model)
    before = graph.model.SerializeToString(deterministic=True)
    first = builder_for(graph).build(list(graph.weights)).data
    assert graph.model.SerializeToString(deterministic=True) == before
    again = load(onnx.ModelProto.FromString(model.SerializeToString()))
    assert builder_for(again).build(list(again.weights)).data == first


def test_texts_for_people_are_left_out():
    model = matmul_chain()
    model.doc_string = model.graph.doc_string = "SECRET"
    model.producer_name = "SECRET"
    model.graph.metadata_props.add(key="SECRET", value="SECRET")
    model.graph.input[0].doc_string = "SECRET"
    model.graph.input[0].type.denotation = "SECRET"
    value = tensor(np.zeros(1, np.float32), "SECRET")
    value.doc_string = "SECRET"
    model.graph.initializer[0].doc_string = "SECRET"
    for node in model.graph.node:
        node.name = "SECRET"
        node.doc_string = "SECRET"
        node.metadata_props.add(key="SECRET", value="SECRET")
    model.opset_import.add(domain="SECRET", version=1)
    graph = load(model)
    assert b"SECRET" not in builder_for(graph).build(list(graph.weights)).data


def onnx_skeleton_info(graph: Graph):
    return scan(builder_for(graph).build(list(graph.weights)).data)


def test_the_models_metadata_is_carried_except_for_options_and_files(tmp_path: Path):
    model = matmul_chain()
    pairs = {"names": "{0: 'cat',\n1: 'dog'}", "stride": "32"}
    helper.set_model_props(model, {**pairs, "ort_config": "{}", "data_path": "x"})
    graph = load(model)
    assert onnx_skeleton_info(graph).metadata == pairs
    session = ort.InferenceSession(write_model_files(graph, tmp_path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == pairs
    (note,) = graph.notes
    assert note == (
        "2 entries of the model's metadata left out: 'ort_config' (ONNX Runtime reads options from it), "
        "'data_path' (it names a file)"
    )


def test_names_of_inputs_and_outputs_stay_and_others_become_short():
    model = matmul_chain(5)
    graph = load(model)
    built = onnx.ModelProto.FromString(builder_for(graph).build(list(graph.weights)).data)
    assert [tensor.name for tensor in built.graph.initializer] == ["0", "1", "2", "3", "4"]
    assert [node.output[0] for node in built.graph.node] == ["5", "6", "7", "8", "y"]
    assert (built.graph.input[0].name, built.graph.output[0].name) == ("x", "y")


def test_a_skeleton_does_not_depend_on_the_order_that_was_built_first():
    graph = load(matmul_chain())
    orders = [["w2", "w0", "w1"], ["w0", "w1", "w2"]]
    first, second = builder_for(graph), builder_for(graph)
    forwards = [first.build(order).data for order in orders]
    assert [second.build(order).data for order in orders[::-1]][::-1] == forwards


def test_short_names_never_meet_names_that_stay(tmp_path: Path):
    # The weights are called what the values in between would become.
    nodes = [
        helper.make_node("MatMul", ["1", "0"], ["middle"]),
        helper.make_node("MatMul", ["middle", "0"], ["2"]),
    ]
    held = tensor(W, "0")
    model = make(nodes, [held], inputs=[info("1")], outputs=[info("2", None)])
    graph = load(model)
    x = {"1": np.ones((2, 16), np.float32)}
    assert np.array_equal(run(write_model_files(graph, tmp_path), x)[0], run(model.SerializeToString(), x)[0])


def test_weights_that_are_outputs_or_have_names_of_inputs_stay_reachable(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["0", "1"], ["middle"]), helper.make_node("MatMul", ["middle", "w"], ["_1"])]
    held = [tensor(W, "1"), tensor(2 * W, "w")]
    model = make(nodes, held, inputs=[info("0")], outputs=[info("_1", None), info("w", None)])
    graph = load(model)
    x = {"0": np.ones((2, 16), np.float32)}
    expected = run(model.SerializeToString(), x)
    for ours, theirs in zip(run(write_model_files(graph, tmp_path), x), expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_seed_leaves_out_what_the_table_of_holes_says():
    graph = load(matmul_chain(5))
    built = builder_for(graph).build(list(graph.weights))
    assert built.data.startswith(built.carried)
    assert b"model.weights" not in built.carried
    assert built.data[len(built.carried) :] == b"".join(initializers(built.names, built.holes))


def test_attributes_of_convolutions_that_are_defaults_are_left_out():
    attributes = {"group": 1, "auto_pad": "NOTSET", "dilations": [1, 1], "pads": [0] * 4, "strides": [1, 1]}
    kept = {"group": 2, "auto_pad": "SAME_UPPER", "dilations": [1, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], **attributes),
        helper.make_node("Conv", ["a", "w0"], ["b"], **kept),
        helper.make_node("Softmax", ["b"], ["y"], axis=-1),
    ]
    graph = load(make(nodes, [tensor(np.ones((4, 2, 1, 1), np.float32), "w0")]))
    built = onnx.ModelProto.FromString(builder_for(graph).build_unchecked(list(graph.weights)).data)
    found = [{each.name for each in node.attribute} for node in built.graph.node]
    assert found == [{"pads", "strides"}, set(kept), {"axis"}]


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
    zero = tensor(np.array(0, np.float32), "zero")
    model = make(nodes, [*weights((16, 16)), zero])
    original = tmp_path / "original.onnx"
    onnx.save(model, original)
    rebuilt = write_model_files(load(model), tmp_path)
    for sign in (1, -1):
        feeds = {"x": sign * X["x"]}
        assert np.array_equal(run(rebuilt, feeds)[0], run(original, feeds)[0])


def test_a_model_without_weights_is_a_skeleton_too(tmp_path: Path):
    graph: Graph = load(make([helper.make_node("Relu", ["x"], ["y"])], []))
    built = builder_for(graph).build([])
    assert (built.holes, built.weights_size) == ([], 0)
    assert run(write_model_files(graph, tmp_path), {"x": np.ones((1, 16), np.float32)})[0].all()


def test_a_weight_with_more_axes_than_a_device_accepts_is_refused():
    deep = tensor(np.zeros((2,) * 9, np.float32), "w0")
    graph = load(make([helper.make_node("Add", ["x", "w0"], ["y"])], [deep]))
    with pytest.raises(UnsupportedError, match="9 axes"):
        builder_for(graph).build(["w0"])


def test_an_operator_that_no_device_accepts_is_refused():
    graph = load(make([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")], []))
    with pytest.raises(UnsupportedError, match="EPContext"):
        builder_for(graph).build([])


def test_a_graph_larger_than_a_device_accepts_is_refused():
    strings = helper.make_tensor("w0", TensorProto.STRING, [336], [b"a" * 100_000] * 336)
    graph = load(make([helper.make_node("Gather", ["w0", "x"], ["y"])], [strings]))
    with pytest.raises(UnsupportedError, match="no device would accept"):
        builder_for(graph).build([])
