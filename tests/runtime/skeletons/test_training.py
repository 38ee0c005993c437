"""Training graphs written by hand, and what is refused before one is joined to its skeleton."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seed_runtime.errors import FormatError, LimitError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.limits import TRAINING_RAW_MAX
from seed_runtime.skeletons import onnx
from seed_runtime.skeletons.training import TrainedTensor, scan_training
from tests.support.onnx_bytes import EXTERNAL, Hole, entries, graph, model, num, put, value

TARGET = put(1, put(2, "n")) + put(1, num(1, 2))
W = put(1, num(1, 2)) + put(1, num(1, 3))


def made(*names: str) -> bytes:
    """Return a node with these results."""
    return put(1, b"".join(put(2, name) for name in names) + put(4, "Sum") + put(1, "x"))


def given(name: str, dims: bytes = b"") -> bytes:
    return put(11, value(name, dims))


NODES = made(".0") + made("train.loss", "train.full.w")
INPUTS = [
    given("train.target", TARGET),
    given("train.cross_entropy.1"),
    given("train.squared_error"),
    given("train.cosine"),
    given("w", W),
]
OUTPUTS = [put(12, put(1, name)) for name in ("train.loss", "train.full.w")]
CONSTANT = put(5, num(2, 1) + put(8, ".1") + put(9, bytes(4)))


def part(
    nodes: bytes = NODES,
    inputs: Any = tuple(INPUTS),
    outputs: Any = tuple(OUTPUTS),
    constants: bytes = CONSTANT,
    extra: bytes = b"",
    beside: bytes = b"",
) -> bytes:
    return put(7, nodes + constants + b"".join((*inputs, *outputs)) + extra) + beside


def scan(data: bytes, skeleton: bytes | None = None, hole: Hole | None = None):
    return scan_training(data, model() if skeleton is None else skeleton, [hole or Hole()])


def test_a_training_graph_written_by_hand_is_read() -> None:
    found = scan(part())
    assert found.tensors == (TrainedTensor("w", 0, "train.full.w", 2),)
    assert (found.axis, found.cross_entropy, found.target.dims) == (1, "train.cross_entropy.1", ("n", 2))
    assert (found.norms, found.has_features) == ((), False)


def test_elements_that_decide_for_themselves_and_features_are_named() -> None:
    inputs = [*INPUTS[:1], given("train.cross_entropy"), *INPUTS[2:]]
    found = scan(part(inputs=inputs, outputs=[*OUTPUTS, put(12, put(1, "train.features"))]))
    assert (found.axis, found.has_features) == (None, True)


def test_the_skeleton_and_the_part_behind_it_are_one_graph() -> None:
    parsed = pytest.importorskip("onnx").load_model_from_string(model() + part())
    assert [node.op_type for node in parsed.graph.node] == ["MatMul", "Sum", "Sum"]
    assert [each.name for each in parsed.graph.input] == ["x", *(f"train.{name}" for name in NAMES), "w"]
    assert [each.name for each in parsed.graph.output] == ["y", "train.loss", "train.full.w"]
    assert parsed.ir_version == 8


NAMES = ("target", "cross_entropy.1", "squared_error", "cosine")

ATTACKS = {
    "a version": (part(beside=num(1, 9)), "Addition has field 1"),
    "an opset": (part(beside=put(8, put(1, "") + num(2, 9))), "Addition has field 8"),
    "metadata": (part(beside=put(14, put(1, "k") + put(2, "v"))), "Addition has field 14"),
    "two graphs": (part() + part(), "Addition.graph is given twice"),
    "no graph": (b"", "has no graph"),
    "a name": (part(extra=put(2, "h")), "AddedGraph has field 2"),
    "stated shapes": (part(extra=put(13, value("y"))), "AddedGraph has field 13"),
    "data in a file": (
        part(constants=put(5, num(2, 1) + put(8, ".1") + entries(location="/etc/passwd") + EXTERNAL)),
        "lies in a file",
    ),
    "a value of the model": (part(NODES + made("y")), "defines 'y', which the model defines as well"),
    "an input of the model": (part(NODES + made("x")), "defines 'x', which the model defines as well"),
    "a weight by a node": (part(NODES + made("w")), "defines 'w', which the model defines as well"),
    "a weight by a constant": (
        part(constants=put(5, num(2, 1) + put(8, "w") + put(9, bytes(4)))),
        "defines 'w', which the model defines as well",
    ),
    "a constant without a name": (part(constants=put(5, num(2, 1) + put(9, bytes(4)))), "is empty or can't be printed"),
    "a constant with an empty name": (
        part(constants=put(5, num(2, 1) + put(8, "") + put(9, bytes(4)))),
        "is empty or can't be printed",
    ),
    "a constant whose name can't be printed": (
        part(constants=put(5, num(2, 1) + put(8, "\n") + put(9, bytes(4)))),
        "is empty or can't be printed",
    ),
    "a value twice": (part(NODES + made(".0")), "defines a name twice"),
    "a constant and a value": (part(NODES + made(".1")), "defines a name twice"),
    "a weight twice": (part(inputs=[*INPUTS, INPUTS[-1]]), "defines a name twice"),
    "another input": (part(inputs=[*INPUTS, given("z")]), "needs the inputs"),
    "a missing input": (part(inputs=INPUTS[1:]), "needs the inputs"),
    "two factors": (part(inputs=[*INPUTS, given("train.cross_entropy.0")]), "needs the inputs"),
    "no such axis": (
        part(inputs=[INPUTS[0], given("train.cross_entropy.2"), *INPUTS[2:]]),
        "names no axis of the target",
    ),
    "an axis in other digits": (
        part(inputs=[INPUTS[0], given("train.cross_entropy.\u0661"), *INPUTS[2:]]),
        "names no axis of the target",
    ),
    "a target without axes": (part(inputs=[given("train.target"), *INPUTS[1:]]), "no tensor of float32 with axes"),
    "a weight of another shape": (part(inputs=[*INPUTS[:-1], given("w", TARGET)]), "another type of 'w'"),
    "an output of nothing": (part(outputs=[*OUTPUTS, put(12, put(1, ".0"))]), "nothing of a weight"),
    "an output of another value": (part(outputs=[*OUTPUTS, put(12, put(1, "train.full.y"))]), "nothing of a weight"),
    "a role of another name": (part(outputs=[*OUTPUTS, put(12, put(1, "train.most.w"))]), "nothing of a weight"),
    "a weight of two sets": (part(outputs=[*OUTPUTS, put(12, put(1, "train.head.w"))]), "aren't one loss"),
    "no loss": (part(outputs=OUTPUTS[1:]), "aren't one loss"),
    "no gradient": (part(outputs=OUTPUTS[:1]), "aren't one loss"),
    "a mean without a variance": (
        part(outputs=[OUTPUTS[0], put(12, put(1, "train.mean.w"))]),
        "aren't one loss",
    ),
    "an end within a number": (part()[:-1], "past the end"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_training_graph_may_not_have_is_refused(attack: str) -> None:
    data, problem = ATTACKS[attack]
    with pytest.raises(FormatError, match=problem):
        scan(data)


def test_a_weight_that_is_not_of_float32_is_refused() -> None:
    half = num(1, 2) + num(1, 3) + num(2, 10) + put(8, "w")
    place = entries(location="model.weights", offset="64", length="12") + EXTERNAL
    skeleton = model(graph(tensors=half + place))
    hole = replace(Hole(), dtype=BY_NAME["float16"], size=12)
    assert onnx.scan(skeleton).tensors[0].dtype.name == "float16"
    with pytest.raises(FormatError, match="another type of 'w'"):
        scan(part(), skeleton, hole)


def test_operators_of_other_domains_and_those_that_run_code_are_refused() -> None:
    for node in (put(4, "PyOp"), put(4, "Sum") + put(7, "mine")):
        with pytest.raises(UnsupportedError):
            scan(part(NODES + put(1, node)))


def test_a_graph_that_is_too_large_to_compare_is_refused_before_it_is_walked() -> None:
    with pytest.raises(LimitError):
        scan(bytes(TRAINING_RAW_MAX + 1))
