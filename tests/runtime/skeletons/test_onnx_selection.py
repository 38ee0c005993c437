"""Parts of a training graph that some of its outputs need."""

from __future__ import annotations

from seed_runtime.skeletons.onnx_selection import select
from tests.support.onnx_bytes import attribute, num, put, value


def node(reads: str, makes: str, extra: bytes = b"") -> bytes:
    inputs = b"".join(put(1, name) for name in reads.split())
    return put(1, inputs + b"".join(put(2, name) for name in makes.split()) + put(4, "Sum") + extra)


def constant(name: str) -> bytes:
    return put(5, num(2, 1) + put(8, name) + put(9, bytes(4)))


BODY = put(1, put(1, "captured") + put(2, "inner") + put(4, "Sum")) + put(12, value("inner"))
NODES = {
    "a": node("x c1", "a"),
    "b": node("w c2", "b spare"),
    "loss": node("a t", "loss"),
    "loop": node("b", "grad", put(5, attribute(5, put(6, BODY)))),
    "captured": node("x", "captured"),
}
ORDER = ("a", "b", "captured", "loss", "loop")
CONSTANTS = constant("c1") + constant("c2")
INPUTS = {name: put(11, value(name)) for name in ("t", "w", "v")}
OUTPUTS = {name: put(12, put(1, name)) for name in ("loss", "grad")}
PART = put(
    7,
    b"".join([*(NODES[name] for name in ORDER), CONSTANTS, *INPUTS.values(), *OUTPUTS.values()]),
)


def test_an_output_has_the_nodes_constants_and_inputs_that_it_needs() -> None:
    kept = NODES["a"] + NODES["loss"] + constant("c1") + INPUTS["t"] + OUTPUTS["loss"]
    assert select(PART, ["loss"]) == put(7, kept)


def test_values_that_a_nested_graph_reads_are_needed_too() -> None:
    kept = NODES["b"] + NODES["captured"] + NODES["loop"] + constant("c2") + INPUTS["w"] + OUTPUTS["grad"]
    assert select(PART, ["grad"]) == put(7, kept)


def test_inputs_that_are_asked_for_stay() -> None:
    assert select(PART, [], ["v"]) == put(7, INPUTS["v"])


def test_all_outputs_have_all_that_is_used() -> None:
    whole = b"".join([*(NODES[name] for name in ORDER), CONSTANTS, INPUTS["t"], INPUTS["w"], *OUTPUTS.values()])
    assert select(PART, ["loss", "grad"]) == put(7, whole)
