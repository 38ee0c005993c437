"""Graphs of gradients: which values they take and give, what they refuse, and what stays free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.gradients import gradient_graph, missing_rules
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.gradients import differences, session, whole
from tests.exporter.support.onnx_models import info, make

_RNG = np.random.default_rng(5)
W = _RNG.standard_normal((16, 16)).astype(np.float32)
B = _RNG.standard_normal(16).astype(np.float32)
X = _RNG.standard_normal((3, 16)).astype(np.float32)
SEED = _RNG.standard_normal((3, 16)).astype(np.float32)
LINEAR = helper.make_node("MatMul", ["x", "w"], ["h"])


def graph_of(nodes: Sequence[onnx.NodeProto], **rest) -> Graph:
    weights = [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")]
    return load(make(nodes, [*weights, *rest.pop("constants", ())], **rest))


def gradients(graph: Graph, wrt: Sequence[str], feeds: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    built = gradient_graph(graph, ["y"], wrt)
    check_runnable(built)
    return session(built).run([f"grad.{name}" for name in wrt], {"x": X, "grad.y": SEED, **(feeds or {})})


def test_weights_inputs_and_values_in_between_get_gradients_under_their_names() -> None:
    graph = graph_of([LINEAR, helper.make_node("Add", ["h", "b"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])])
    at_x, at_h, at_w, at_b = gradients(graph, ["x", "h", "w", "b"])
    slope = SEED * (1 - np.tanh(X @ W + B) ** 2)
    for found, expected in [(at_h, slope), (at_x, slope @ W.T), (at_w, X.T @ slope), (at_b, slope.sum(axis=0))]:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_inputs_outputs_and_free_dimensions_of_the_model_stay() -> None:
    graph = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], inputs=[info("x", ["batch", 16])])
    built = gradient_graph(graph, ["y"], ["w", "x"])
    assert [value.name for value in built.model.graph.input] == ["x", "grad.y"]
    assert [value.name for value in built.model.graph.output] == ["y", "grad.w", "grad.x"]
    assert built.weights["w"].data is graph.weights["w"].data
    for rows in (1, 5):
        x = np.ones((rows, 16), np.float32)
        y, _, at_x = session(built).run(None, {"x": x, "grad.y": x})
        assert y.shape == at_x.shape == (rows, 16)


def test_the_outputs_are_left_out_on_request_with_what_only_they_need() -> None:
    graph = graph_of([LINEAR, helper.make_node("Exp", ["h"], ["e"]), helper.make_node("Neg", ["h"], ["y"])])
    built = gradient_graph(graph, ["y"], ["w"], keep_outputs=False)
    assert [value.name for value in built.model.graph.output] == ["grad.w"]
    assert {node.op_type for node in built.model.graph.node}.isdisjoint({"Exp"})


def test_gradients_of_all_uses_are_summed() -> None:
    nodes = [LINEAR, helper.make_node("MatMul", ["h", "w"], ["k"]), helper.make_node("Mul", ["k", "h"], ["y"])]

    def loss(w: np.ndarray) -> float:
        return float((SEED * (X @ w @ w) * (X @ w)).sum())

    found = gradients(graph_of(nodes), ["w"])[0]
    expected = differences(loss, W.astype(np.float64), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_several_outputs_take_a_gradient_each_and_their_gradients_are_summed() -> None:
    nodes = [LINEAR, helper.make_node("Neg", ["h"], ["y"])]
    graph = graph_of(nodes, outputs=[info("y", None), info("h", None)])
    built = gradient_graph(graph, ["y", "h"], ["w"])
    found = session(built).run(["grad.w"], {"x": X, "grad.y": SEED, "grad.h": 3 * SEED})[0]
    np.testing.assert_allclose(found, X.T @ (2 * SEED), rtol=1e-4, atol=1e-4)


def test_integers_and_booleans_stop_gradients_and_need_no_rules() -> None:
    nodes = [
        LINEAR,
        helper.make_node("IsNaN", ["h"], ["nan"]),
        helper.make_node("ArgMax", ["h"], ["best"], axis=1, keepdims=1),
        helper.make_node("Cast", ["best"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["nan", "number", "h"], ["chosen"]),
        helper.make_node("Add", ["chosen", "number"], ["y"]),
    ]
    np.testing.assert_allclose(gradients(graph_of(nodes), ["w"])[0], X.T @ SEED, rtol=1e-4, atol=1e-4)


def test_what_no_output_depends_on_gets_zeros() -> None:
    nodes = [LINEAR, helper.make_node("Add", ["h", "b"], ["z"]), helper.make_node("Neg", ["h"], ["y"])]
    at_b = gradients(graph_of(nodes, outputs=[info("y", None), info("z", None)]), ["b"])[0]
    assert at_b.shape == (16,)
    assert not at_b.any()


def test_softmax_and_log_sum_exp_stay_finite_at_large_values() -> None:
    for op in ("Softmax", "LogSoftmax"):
        graph = graph_of([LINEAR, helper.make_node(op, ["h"], ["y"])])
        assert np.isfinite(gradients(graph, ["w"], {"x": 1000 * X})[0]).all()
    nodes = [LINEAR, helper.make_node("ReduceLogSumExp", ["h", "axes"], ["y"])]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    found = gradients(graph_of(nodes, constants=[axes], opset=18), ["w"], {"x": 1000 * X, "grad.y": SEED[:, :1]})[0]
    assert np.isfinite(found).all()


def test_an_older_model_is_brought_to_an_opset_that_the_rules_know() -> None:
    nodes = [LINEAR, helper.make_node("ReduceSum", ["h"], ["s"], axes=[1]), helper.make_node("Mul", ["s", "h"], ["y"])]
    found = gradients(graph_of(nodes, opset=11, ir=6), ["x"])[0]
    h = X @ W
    expected = (SEED * h.sum(axis=1, keepdims=True) + (SEED * h).sum(axis=1, keepdims=True)) @ W.T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_node_without_a_rule_is_named_and_can_be_asked_for() -> None:
    nodes = [
        LINEAR,
        helper.make_node("Hardmax", ["h"], ["k"], name="hard"),
        helper.make_node("Det", ["k"], ["y"]),
    ]
    graph = graph_of(nodes)
    assert missing_rules(graph, ["y"], ["w"]) == {"Det": ("the one that makes 'y'",), "Hardmax": ("hard",)}
    assert missing_rules(graph, ["h"], ["w"]) == {}
    with pytest.raises(UnsupportedError, match=r"through Det \(node the one that makes 'y'\).* \(and 1 more nodes\)"):
        gradient_graph(graph, ["y"], ["w"])
    with pytest.raises(
        UnsupportedError, match=r"through Hardmax \(node hard\): the operator has no rule; .*forward runs"
    ):
        gradient_graph(graph, ["k"], ["w"])


def test_rounding_on_the_way_is_named() -> None:
    nodes = [
        LINEAR,
        helper.make_node("QuantizeLinear", ["h", "step"], ["integers"], name="rounds"),
        helper.make_node("DequantizeLinear", ["integers", "step"], ["y"]),
    ]
    graph = graph_of(nodes, constants=[numpy_helper.from_array(np.array(0.5, np.float32), "step")])
    assert missing_rules(graph, ["y"], ["w"]) == {"QuantizeLinear": ("rounds",)}
    assert missing_rules(graph, ["h"], ["w"]) == {}
    with pytest.raises(UnsupportedError, match=r"QuantizeLinear \(node rounds\): the slope of rounding"):
        gradient_graph(graph, ["y"], ["w"])


def test_attributes_that_a_rule_does_not_know_are_named() -> None:
    nodes = [
        LINEAR,
        helper.make_node("Unsqueeze", ["h", "axes"], ["image"]),
        helper.make_node("BatchNormalization", ["image", "w1", "w1", "w1", "w1"], ["y", "m", "v"], training_mode=1),
    ]
    constants = [numpy_helper.from_array(np.array([2]), "axes"), numpy_helper.from_array(B, "w1")]
    graph = graph_of(nodes, constants=constants)
    assert missing_rules(graph, ["y"], ["w"]).keys() == {"BatchNormalization"}
    with pytest.raises(UnsupportedError, match="training mode"):
        gradient_graph(graph, ["y"], ["w"])


RECURRENT = [numpy_helper.from_array(_RNG.standard_normal((1, 8, 16)).astype(np.float32), "wx"),
             numpy_helper.from_array(_RNG.standard_normal((1, 8, 2)).astype(np.float32), "wh")]  # fmt: skip


def test_a_recurrent_layer_whose_last_state_alone_is_read_gets_gradients() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["steps"]),
        helper.make_node("LSTM", ["steps", "wx", "wh"], ["", "last"], hidden_size=2),
        helper.make_node("Squeeze", ["last", "axes"], ["y"]),
    ]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = graph_of(nodes, constants=[axes, *RECURRENT], opset=18)
    x, seed = X * 0.3, SEED[:1, :2]
    found = gradients(graph, ["x"], {"x": x, "grad.y": seed})[0]
    run = session(graph)
    expected = differences(lambda each: float((run.run(["y"], {"x": each})[0] * seed).sum()), x, 2e-2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"clip": 3.0}, "clip"), ({"input_forget": 1}, "input_forget"), ({"layout": 1}, "layout 1"),
     ({"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "the activation Hardsigmoid")],
)  # fmt: skip
def test_what_recurrent_rules_do_not_know_is_named(attributes: dict[str, object], reason: str) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["steps"]),
        helper.make_node("LSTM", ["steps", "wx", "wh"], ["y"], hidden_size=2, **attributes),
    ]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = graph_of(nodes, constants=[axes, *RECURRENT], opset=18)
    assert missing_rules(graph, ["y"], ["wx"]).keys() == {"LSTM"}
    with pytest.raises(UnsupportedError, match=f"LSTM .*: its rule doesn't know {reason}"):
        gradient_graph(graph, ["y"], ["wx"])


@pytest.mark.parametrize("attributes", [{"mode": "nearest"}, {"padding_mode": "reflection"}])
def test_modes_of_sampling_without_a_rule_are_named(attributes: dict[str, str]) -> None:
    inputs = [info("x", [1, 2, 3, 4]), info("grid", [1, 5, 5, 2])]
    nodes = [helper.make_node("GridSample", ["x", "grid"], ["y"], **attributes)]
    with pytest.raises(UnsupportedError, match=f"GridSample .*{next(iter(attributes.values()))}"):
        gradient_graph(graph_of(nodes, inputs=inputs, outputs=[info("y", None)], opset=20), ["y"], ["x"])


def packed_matrix(batch: int, rows: int, columns: int, **others: np.ndarray) -> Graph:
    """A product with a matrix of 4 bits, whose blocks have 16 rows."""
    constants = {
        "packed": _RNG.integers(0, 256, (columns, rows // 16, 8)).astype(np.uint8),
        "scales": _RNG.uniform(0.5, 1, (columns, rows // 16)).astype(np.float32),
        **others,
    }
    inputs = ["x", *(name if name in constants else "" for name in ("packed", "scales", "zeros", "order"))]
    sizes = {"K": rows, "N": columns, "bits": 4, "block_size": 16}
    node = helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **sizes)
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = make([node], tensors, inputs=[info("x", [batch, rows])], outputs=[info("y", [batch, columns])])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return load(model)


def test_a_packed_matrix_takes_the_memory_of_its_floats_on_the_way_back() -> None:
    rows, columns = 1024, 4
    model = whole(gradient_graph(packed_matrix(2, rows, columns), ["y"], ["x", "scales"]))
    del model.graph.output[:]
    made = [name for node in model.graph.node for name in node.output]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    feeds = {"x": np.ones((2, rows), np.float32), "grad.y": np.ones((2, columns), np.float32)}
    values = session(model).run(None, feeds)
    assert max(value.size for value in values) == rows * columns


def test_groups_of_a_packed_matrix_may_have_an_order() -> None:
    order = _RNG.integers(0, 3, 48).astype(np.int32)
    built = gradient_graph(packed_matrix(48, 48, 4, order=order), ["y"], ["x"])
    seed = _RNG.standard_normal((48, 4)).astype(np.float32)
    matrix, found = session(built).run(["y", "grad.x"], {"x": np.eye(48, dtype=np.float32), "grad.y": seed})
    np.testing.assert_allclose(found, seed @ matrix.T, rtol=1e-4, atol=1e-4)


def test_zero_points_with_an_order_of_groups_are_refused() -> None:
    graph = packed_matrix(2, 32, 4, zeros=np.zeros((4, 1), np.uint8), order=np.zeros(32, np.int32))
    with pytest.raises(UnsupportedError, match="zero points with an order of groups"):
        gradient_graph(graph, ["y"], ["x"])


def test_numbers_that_only_count_need_no_rule() -> None:
    nodes = [
        LINEAR,
        helper.make_node("Size", ["h"], ["size"]),
        helper.make_node("Range", ["zero", "size", "one"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["factors"]),
        helper.make_node("Mul", ["h", "factors"], ["y"]),
    ]
    values = {"zero": np.array(0), "one": np.array(1), "shape": np.array([3, 16])}
    graph = graph_of(nodes, constants=[numpy_helper.from_array(each, name) for name, each in values.items()])
    assert missing_rules(graph, ["y"], ["w"]) == {}
    found = gradients(graph, ["w"])[0]
    np.testing.assert_allclose(found, X.T @ (SEED * np.arange(48).reshape(3, 16)), rtol=1e-4, atol=1e-3)


def test_nested_graphs_on_the_way_are_refused_and_others_are_left_alone() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(op, ["h"], [name])], name, [], [info(name, None)])

    choice = helper.make_node(
        "If", ["condition"], ["k"], name="choice", then_branch=branch("a", "Neg"), else_branch=branch("b", "Exp")
    )
    nodes = [LINEAR, choice, helper.make_node("Mul", ["k", "h"], ["y"])]
    condition = info("condition", (), TensorProto.BOOL)
    graph = graph_of(nodes, inputs=[info("x"), condition], outputs=[info("y", None), info("h", None)])
    assert missing_rules(graph, ["y"], ["w"]) == {"If": ("choice",)}
    with pytest.raises(UnsupportedError, match=r"If \(node choice\): gradients don't enter nested graphs"):
        gradient_graph(graph, ["y"], ["w"])
    assert missing_rules(graph, ["h"], ["w"]) == {}


@pytest.mark.parametrize(
    ("outputs", "wrt"),
    [(["y"], ["missing"]), (["y"], ["y"]), (["y", "y"], ["w"]), ([], ["w"]), (["y"], []), (["y"], ["condition"])],
)
def test_names_are_checked(outputs: list[str], wrt: list[str]) -> None:
    graph = graph_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], inputs=[info("x"), info("condition", (), TensorProto.BOOL)]
    )
    with pytest.raises(ValueError, match=r"names, each once|no value of floats"):
        gradient_graph(graph, outputs, wrt)
