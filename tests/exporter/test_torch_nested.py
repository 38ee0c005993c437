"""Graphs in attributes, run in torch beside ONNX Runtime, with gradients. Skipped without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.gradients import differences, session
from tests.exporter.support.onnx_models import W, X, info, make

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
from seed_exporter.heal.interpreter import Interpreter  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds

FEED = {"x": X["x"] * 0.2}
FLAG = info("flag", (), TensorProto.BOOL)
LINEAR = helper.make_node("MatMul", ["x", "w"], ["h"])


def n(op: str, inputs: str, outputs: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def body(nodes: Sequence[onnx.NodeProto], inputs: str, outputs: str, **constants: np.ndarray) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    # ONNX Runtime asks for the shapes of what a loop counts and of its condition.
    scalars = {"i": info("i", (), TensorProto.INT64), "go": info("go", (), TensorProto.BOOL)}
    values = [[scalars.get(name) or onnx.ValueInfoProto(name=name) for name in names.split()]
              for names in (inputs, outputs)]  # fmt: skip
    return helper.make_graph(nodes, f"to {outputs}", *values, tensors)


def graph_of(nodes: Sequence[onnx.NodeProto], *outputs: str, **constants: np.ndarray) -> Graph:
    tensors = [numpy_helper.from_array(array, name) for name, array in {"w": W, **constants}.items()]
    given = [info("x", [None, 16])] + ([FLAG] if any("flag" in node.input for node in nodes) else [])
    results = [info(name, None) for name in outputs or ["y"]]
    return load(make(nodes, tensors, inputs=given, outputs=results, opset=18))


def check(graph: Graph, feed: Mapping[str, np.ndarray] = FEED) -> None:
    """Compare outputs with ONNX Runtime's, and the gradient of their sum with finite differences of it."""
    run = session(graph)
    interpreter = Interpreter(graph)
    fed = {name: interpreter.tensor(array) for name, array in feed.items()}
    fed["x"].requires_grad_()
    found = interpreter.run(fed)
    for output, expected in zip(run.get_outputs(), run.run(None, feed), strict=True):
        np.testing.assert_allclose(found[output.name].detach(), expected, rtol=1e-5, atol=1e-5)
    sum(value.sum() for value in found.values()).backward()

    def loss(x: np.ndarray) -> float:
        return sum(float(each.astype(np.float64).sum()) for each in run.run(None, {**feed, "x": x}))

    expected = differences(loss, feed["x"], 2e-2)
    np.testing.assert_allclose(fed["x"].grad, expected, rtol=1e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("flag", [True, False])
def test_a_choice_takes_the_branch_of_its_condition(flag: bool) -> None:
    then = body([n("Mul", "h two", "t"), n("Tanh", "t", "a")], "", "a", two=np.float32([2.0]))
    other = body([n("MatMul", "x v", "b")], "", "b", v=W[::-1].copy())
    nodes = [LINEAR, n("If", "flag", "k", then_branch=then, else_branch=other), n("Add", "k h", "y")]
    check(graph_of(nodes), {**FEED, "flag": np.array(flag)})


def test_a_choice_that_is_constant_is_made_once() -> None:
    then, other = (
        body([n("Constant", "", name, value_ints=[value])], "", name) for name, value in (("a", 0), ("b", 1))
    )
    nodes = [n("If", "yes", "axes", then_branch=then, else_branch=other), n("ReduceSum", "x axes", "y")]
    graph = graph_of(nodes, yes=np.array(True))
    check(graph)
    assert [step.node.op_type for step in Interpreter(graph)._steps] == ["ReduceSum"]


LOOP = body(
    [n("MatMul", "s w", "m"), n("Tanh", "m", "t"), n("Less", "i last", "more"), n("Cast", "i", "f", to=1),
     n("Add", "t f", "seen")],
    "i go s", "more t seen", last=np.array(1),
)  # fmt: skip


@pytest.mark.parametrize(("limit", "turns"), [("two", 2), ("one", 1), ("ten", 2), ("", 2)])
def test_a_loop_ends_by_its_number_of_turns_or_its_condition(limit: str, turns: int) -> None:
    node = helper.make_node("Loop", [limit, "yes", "x"], ["y", "all"], body=LOOP)
    graph = graph_of([node], "y", "all", yes=np.array(True), one=np.array(1), two=np.array(2), ten=np.array(10))
    check(graph)
    assert Interpreter(graph).run(FEED)["all"].shape == (turns, 3, 16)


def test_a_loop_of_no_iterations_returns_what_it_starts_from_and_has_nothing_to_stack() -> None:
    constants = {"yes": np.array(True), "none": np.array(0)}
    node = helper.make_node("Loop", ["none", "yes", "x"], ["y", "all"], name="turns", body=LOOP)
    with pytest.raises(UnsupportedError, match=r"'turns'.* no iterations"):
        Interpreter(graph_of([node], "y", "all", **constants)).run(FEED)
    inner = body([n("Identity", "go", "still"), n("Tanh", "s", "t")], "i go s", "still t")
    check(graph_of([n("Loop", "none yes x", "y", body=inner)], **constants))


@pytest.mark.parametrize("backwards", [0, 1])
def test_a_scan_takes_and_stacks_elements_along_its_axes_and_in_its_directions(backwards: int) -> None:
    inner = body([n("Mul", "s e", "p"), n("Add", "p e", "t"), n("Tanh", "t", "seen")], "s e", "t seen")
    scan = n("Scan", "zero x", "last all", body=inner, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
             scan_input_directions=[backwards], scan_output_directions=[1 - backwards])  # fmt: skip
    check(graph_of([scan], "last", "all", zero=np.full(3, 0.1, np.float32)))


def test_graphs_within_graphs_read_values_of_all_around_them() -> None:
    then, other = body([n("Add", "s h", "a")], "", "a"), body([n("MatMul", "s w", "b")], "", "b")
    inner = body(
        [n("Less", "i one", "first"), n("If", "first", "k", then_branch=then, else_branch=other),
         n("Identity", "go", "still")],
        "i go s", "still k",
    )  # fmt: skip
    constants = {"yes": np.array(True), "three": np.array(3), "one": np.array(1)}
    check(graph_of([LINEAR, n("Loop", "three yes x", "y", body=inner)], **constants))


def test_operators_without_a_function_are_named_in_nested_graphs_as_well() -> None:
    then, other = body([n("Hardmax", "x", "a")], "", "a"), body([n("Tanh", "x", "b")], "", "b")
    with pytest.raises(UnsupportedError, match="Hardmax"):
        Interpreter(graph_of([n("If", "flag", "y", then_branch=then, else_branch=other)]))
