"""The default's promise, four times smaller than fp32, for models of a few kilobytes; why it is missed where it is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.graph.kinds import Kind, kind_of, matrix_min
from seed_exporter.report import text
from tests.exporter.support.exporting import dense, graph_of, layers, of_nodes, quick_export

FLOAT = TensorProto.FLOAT


def convolutions(rng: np.random.Generator, *channels: int, depthwise: bool = False) -> onnx.ModelProto:
    """Convolutions with PRelu, as small detectors have them; all but the first as depthwise and pointwise pairs."""
    nodes, tensors, value = [], [], "x"

    def add(op: str, *shapes: tuple[int, ...], **attributes: object) -> None:
        nonlocal value
        names = [f"features.{len(nodes)}.{index}" for index in range(len(shapes))]
        for name, shape in zip(names, shapes, strict=True):
            scale = np.prod(shape[1:]) ** -0.5 if len(shape) == 4 else 0.1
            tensors.append(numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name))
        nodes.append(helper.make_node(op, [value, *names], [f"v{len(nodes)}"], **attributes))
        value = nodes[-1].output[0]

    for index, (before, after) in enumerate(pairwise(channels)):
        if depthwise and index:
            add("Conv", (before, 1, 3, 3), (before,), group=before, pads=[1, 1, 1, 1])
            add("Conv", (after, before, 1, 1), (after,))
        else:
            add("Conv", (after, before, 3, 3), (after,))
        add("PRelu", (after, 1, 1))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"]))
    ends = [("x", ["batch", 3, 24, 24]), ("y", ["batch", channels[-1], 1, 1])]
    infos = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in ends]
    return of_nodes(nodes, tensors, infos[:1], infos[1:])


def towers(rng: np.random.Generator, width: int, count: int) -> onnx.ModelProto:
    """Matrices with a scale and a bias before and after each: a seventh of the weights are in vectors."""
    nodes, tensors, value = [], [], "x"
    shapes = [("Mul", width), ("Add", width), ("MatMul", (width, width)), ("Mul", width), ("Add", width)]
    for index in range(count):
        for op, shape in shapes:
            name = f"layer{index}.{len(nodes)}"
            data = rng.standard_normal(shape) / width**0.5 + (op == "Mul")
            tensors.append(numpy_helper.from_array(data.astype(np.float32), f"{name}.w"))
            nodes.append(helper.make_node(op, [value, f"{name}.w"], [name]))
            value = name
        nodes.append(helper.make_node("Tanh", [value], [f"tanh{index}"]))
        value = f"tanh{index}"
    nodes.append(helper.make_node("Identity", [value], ["y"]))
    infos = [helper.make_tensor_value_info(name, FLOAT, ["batch", width]) for name in "xy"]
    return of_nodes(nodes, tensors, infos[:1], infos[1:])


def vectors(rng: np.random.Generator, length: int) -> onnx.ModelProto:
    """A model without matrices."""
    tensors = [numpy_helper.from_array(rng.standard_normal(length).astype(np.float32), name) for name in ("a", "b")]
    nodes = [helper.make_node("Mul", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    infos = [helper.make_tensor_value_info(name, FLOAT, [1, length]) for name in "xy"]
    return of_nodes(nodes, tensors, infos[:1], infos[1:])


SMALL: Final[dict[str, tuple[Callable[[np.random.Generator], onnx.ModelProto], float]]] = {
    "dense, 5 KB": (lambda rng: layers(rng, 32, 32, 8), 0.25),
    "dense, 8 KB": (lambda rng: layers(rng, 32, 52, 10), 0.08),
    "dense, 28 KB": (lambda rng: layers(rng, 64, 96, 10), 0.04),
    "dense, 200 KB": (lambda rng: layers(rng, 200, 240, 12), 0.03),
    "convolutions, 12 KB": (lambda rng: convolutions(rng, 3, 8, 16, 10), 0.15),
    "convolutions, 26 KB": (lambda rng: convolutions(rng, 3, 10, 16, 32), 0.06),
    "depthwise, 26 KB": (lambda rng: convolutions(rng, 3, 16, 32, 64, 32, depthwise=True), 0.06),
    "scales and biases, 16 KB": (lambda rng: towers(rng, 24, 6), 0.1),
    "vectors alone, 24 KB": (lambda rng: vectors(rng, 3000), 0.02),
}
"""Models, and the largest error that their outputs may have at a quarter of the size."""
MORE_OF_A_KIND: Final = ("dense, 5 KB", "convolutions, 26 KB")
"""Models of the kind of another one, tested among the slow ones."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in MORE_OF_A_KIND else []) for kind in SMALL]
)
def test_a_model_of_a_few_kilobytes_is_four_times_smaller_by_default(
    kind: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    make, error = SMALL[kind]
    result = quick_export(make(rng), tmp_path / "m.seed")
    assert result.ratio >= 4.0
    assert max(each.relative for each in result.outputs.values()) < error
    assert "note:" not in text.summary(result)


def test_a_note_says_in_numbers_what_keeps_a_model_from_the_promise(rng: np.random.Generator, tmp_path: Path) -> None:
    # Its graph and header alone are larger than a quarter of 0.6 KB.
    result = quick_export(layers(rng, 8, 12, 3), tmp_path / "m.seed")
    fixed = result.bytes - sum(stream.size for stream in result.seed.streams)
    note = next(line for line in text.summary(result).splitlines() if line.startswith("note:"))
    assert result.ratio < 4.0
    assert f"graph and header take {fixed} bytes" in note
    assert f"which would be {text.size(4 * result.parameters / 4.05)}" in note
    assert "bits for each" not in note
    assert note.endswith("so that no choice of weights reaches it")


def test_no_goal_is_advised_where_no_matrix_can_be_coarser(rng: np.random.Generator, tmp_path: Path) -> None:
    codes = rng.integers(-128, 128, (64, 96)).astype(np.int8)
    model = of_nodes(
        [
            helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(np.float32(0.01), "scale")],
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 96])],
    )
    result = quick_export(model, tmp_path / "m.seed")
    note = next(line for line in text.summary(result).splitlines() if line.startswith("note:"))
    assert note.endswith("no matrix of floats is left in this model that could be quantized")
    assert text.advice(result) == "ask for less: no matrix of floats is left in this model that could be quantized"


def test_the_note_is_about_fp32_bytes_whatever_the_floats_of_the_model_are(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    result = quick_export(layers(rng, 64, 96, 10, dtype=np.float16), tmp_path / "m.seed")
    assert 4 * result.parameters / result.bytes >= 4.0
    assert "note:" not in text.summary(result)


def test_how_many_elements_make_a_matrix_depends_on_the_model(rng: np.random.Generator) -> None:
    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    small, large = (graph_of(w=array(64 * k, 96 * k), head=array(96, 10)) for k in (1, 10))
    assert [kind_of(graph.weights["head"], matrix_min(graph)) for graph in (small, large)] == [Kind.MATRIX, Kind.VECTOR]


def test_a_goal_is_kept_with_little_error_where_vectors_take_much_of_it(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    matrices = [rng.standard_normal((8, 512)) / 3, rng.standard_normal((512, 4)) / 22]
    model = dense(matrices, [rng.normal(0, 1, 512), np.zeros(4)])
    result = quick_export(model, tmp_path / "m.seed", target=4.05)
    assert result.goal_met
    assert result.outputs["y"].relative < 0.05
