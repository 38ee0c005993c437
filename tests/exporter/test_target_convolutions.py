"""Convolutions of `--dtype int8`, which multiply bytes where the ranges of values are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.build.streams import restored
from seed_exporter.calibrate import Subject
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.run import run_all
from seed_exporter.graph.edit import with_outputs
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.quantize.allocate import lossless
from seed_exporter.targets import TARGETS, Lowered
from seed_exporter.targets.ranges import Range, Ranges, measure
from seed_exporter.targets.target import Measured
from seed_runtime.backends import Feeds
from tests.exporter.support.exporting import of_nodes

INT8 = TARGETS["int8"]


@pytest.fixture
def graph(rng: np.random.Generator) -> Graph:
    """Return convolutions with a ReLU6, zeros around an input, a kernel for each channel, and a sum: x -> y."""
    drawn = {
        "a": rng.standard_normal((16, 8, 3, 3)) / 8,
        "a_bias": rng.standard_normal(16),
        "b": rng.standard_normal((16, 1, 3, 3)) / 3,
        "b_bias": rng.standard_normal(16),
        "c": rng.standard_normal((16, 16, 1, 1)) / 4,
    }
    constants = {"six": np.float32(6), "nothing": np.float32(0), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    nodes = [
        helper.make_node("Conv", ["x", "a", "a_bias"], ["a_out"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a_out", "nothing", "six"], ["a_clipped"]),
        helper.make_node("Pad", ["a_clipped", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "b", "b_bias"], ["b_out"], group=16),
        helper.make_node("Conv", ["b_out", "c"], ["c_out"]),
        helper.make_node("Add", ["c_out", "a_clipped"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("ReduceMean", ["positive"], ["y"], axes=[2, 3], keepdims=0),
    ]
    initializers = [numpy_helper.from_array(each.astype(np.float32), name) for name, each in drawn.items()]
    initializers += [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()]
    shape = ["n", 8, 12, 12]
    return load(
        of_nodes(
            nodes,
            initializers,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        )
    )


@pytest.fixture
def feeds(rng: np.random.Generator) -> list[Feeds]:
    return [{"x": rng.standard_normal((2, 8, 12, 12)).astype(np.float32)} for _ in range(4)]


def lowered_with(graph: Graph, feeds: list[Feeds], folder: Path) -> Lowered:
    assert INT8.rounds is not None
    names = INT8.rounds(graph)
    ranges = measure(Subject(graph, feeds, folder), names)
    assert ranges.keys() == set(names)
    return replace(INT8, measured=Measured(ranges)).lowered(graph, lossless(graph))


def nodes_of(lowered: Lowered) -> list[onnx.NodeProto]:
    return list(lowered.graph.model.graph.node)


def test_values_around_convolutions_are_rounded_and_their_relus_are_gone(
    graph: Graph, feeds: list[Feeds], tmp_path: Path
) -> None:
    lowered = lowered_with(graph, feeds, tmp_path)
    ops = [node.op_type for node in nodes_of(lowered)]
    # The input, behind both ReLUs, and behind the other two convolutions.
    assert ops.count("QuantizeLinear") == 5
    assert not {"Clip", "Relu", "Pad"} & set(ops)
    pads = [each.ints for node in nodes_of(lowered) for each in node.attribute if each.name == "pads"]
    assert [list(each) for each in pads] == [[1, 1, 1, 1]] * 2
    types = {weight.dtype.name for weight in lowered.graph.weights.values() if len(weight.shape) == 4}
    assert types == {"int8"}


def test_a_clip_whose_limits_are_on_one_side_of_zero_stays(graph: Graph, feeds: list[Feeds], tmp_path: Path) -> None:
    for tensor in graph.model.graph.initializer:
        if tensor.name == "nothing":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1), "nothing"))
    lowered = lowered_with(graph, feeds, tmp_path)
    assert [node.op_type for node in nodes_of(lowered)].count("Clip") == 1


def test_outputs_of_rounded_convolutions_are_near_the_originals(
    graph: Graph, feeds: list[Feeds], tmp_path: Path
) -> None:
    lowered = lowered_with(graph, feeds, tmp_path)
    write_model_files(graph, tmp_path)
    expected = np.concatenate([each["y"] for each in run_all(tmp_path, feeds)])
    write_model_files(lowered.graph, tmp_path, lambda weight: restored(weight, lowered.plans[weight.name]))
    found = np.concatenate([each["y"] for each in run_all(tmp_path, feeds)])
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_convolutions_that_read_the_colours_of_a_picture_multiply_floats(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    drawn = {"a": (16, 3, 5, 5), "b": (16, 1, 3, 3), "c": (16, 16, 1, 1), "d": (16, 1, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["a_out"]),
        helper.make_node("Relu", ["a_out"], ["a_positive"]),
        helper.make_node("Conv", ["a_positive", "b"], ["b_out"], group=16),
        helper.make_node("Conv", ["b_out", "c"], ["c_out"]),
        helper.make_node("Conv", ["c_out", "d"], ["d_out"], group=16),
        helper.make_node("Sigmoid", ["d_out"], ["y"]),
    ]
    initializers = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in drawn.items()
    ]
    model = of_nodes(
        nodes,
        initializers,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    feeds: list[Feeds] = [{"x": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)}]
    lowered = lowered_with(load(model), feeds, tmp_path)
    assert {name for name in lowered.graph.weights if name in drawn} == {"a", "b"}
    # What the kernels of single channels make is the first value that is rounded.
    first = next(node for node in nodes_of(lowered) if node.op_type == "QuantizeLinear")
    assert first.input[0] == "b_out"


@pytest.mark.parametrize(("outputs", "most"), [(8, 2 * 127), (16, 128)])
def test_only_kernels_of_single_channels_may_have_large_neighbours(
    outputs: int, most: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Conv", ["x", "a"], ["out"], group=8), helper.make_node("Sigmoid", ["out"], ["y"])]
    weight = numpy_helper.from_array(rng.uniform(0.9, 1, (outputs, 1, 16, 16)).astype(np.float32), "a")
    model = of_nodes(
        nodes,
        [weight],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    feeds: list[Feeds] = [{"x": rng.standard_normal((1, 8, 16, 16)).astype(np.float32)}]
    lowered = lowered_with(load(model), feeds, tmp_path)
    integers = next(each.data for each in lowered.graph.weights.values() if each.dtype.name == "int8")
    sums = integers.astype(np.int32).reshape(outputs, -1, 2).sum(axis=2)
    assert 0.9 * most < sums.max() <= most


@pytest.mark.parametrize("has_bias", [True, False])
def test_biases_take_up_what_rounding_weights_does_to_the_means(
    has_bias: bool, graph: Graph, feeds: list[Feeds], tmp_path: Path
) -> None:
    assert INT8.rounds is not None
    if not has_bias:
        node = next(node for node in graph.model.graph.node if "b_out" in node.output)
        del node.input[2]
    ranges = measure(Subject(graph, feeds, tmp_path), INT8.rounds(graph))
    plans = {**lossless(graph), "b": GridPlan(0.3)}

    def means(ranges: Ranges) -> np.ndarray:
        lowered = replace(INT8, measured=Measured(ranges)).lowered(graph, plans)
        shown = with_outputs(lowered.graph, ["b_out"])
        write_model_files(shown, tmp_path, lambda weight: restored(weight, lowered.plans[weight.name]))
        return np.mean([each["b_out"].mean(axis=(0, 2, 3)) for each in run_all(tmp_path, feeds)], axis=0)

    write_model_files(with_outputs(graph, ["b_out"]), tmp_path)
    expected = np.mean([each["b_out"].mean(axis=(0, 2, 3)) for each in run_all(tmp_path, feeds)], axis=0)
    without = means({name: replace(found, means=None) for name, found in ranges.items()})
    assert np.linalg.norm(means(ranges) - expected) < 0.3 * np.linalg.norm(without - expected)


def test_without_ranges_convolutions_get_floats(graph: Graph) -> None:
    lowered = INT8.lowered(graph, lossless(graph))
    ops = [node.op_type for node in nodes_of(lowered)]
    assert "QuantizeLinear" not in ops
    assert {"Clip", "Relu", "Pad"} <= set(ops)


def test_before_there_was_an_operator_for_it_no_convolution_multiplies_bytes(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = of_nodes(
        [helper.make_node("Conv", ["x", "k"], ["out"]), helper.make_node("Sigmoid", ["out"], ["y"])],
        [numpy_helper.from_array(rng.standard_normal((16, 8, 3, 3)).astype(np.float32), "k")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        opset=9,
    )
    feeds: list[Feeds] = [{"x": rng.standard_normal((1, 8, 6, 6)).astype(np.float32)}]
    lowered = lowered_with(load(model), feeds, tmp_path)
    assert [node.op_type for node in nodes_of(lowered)] == ["DequantizeLinear", "Conv", "Sigmoid"]
    write_model_files(lowered.graph, tmp_path, lambda weight: restored(weight, lowered.plans[weight.name]))
    (found,) = run_all(tmp_path, feeds)
    assert found["y"].shape == (1, 16, 4, 4)


def test_a_bias_larger_than_its_steps_can_count_makes_them_larger(
    graph: Graph, feeds: list[Feeds], tmp_path: Path
) -> None:
    weight = graph.weights["a"]
    data = weight.data.copy()
    data[3] *= 1e-12
    weights = {**graph.weights, "a": replace(weight, data=data)}
    lowered = lowered_with(replace(graph, weights=weights), feeds, tmp_path)
    integers = next(each.data for each in lowered.graph.weights.values() if each.name.startswith("a_bias_int32"))
    assert np.abs(integers.astype(np.int64)).max() <= 2**30 + 2**20
    assert abs(int(integers[3])) > 2**29


def test_the_byte_that_stands_for_zero_is_exact() -> None:
    found = Range(-1.0, 3.0)
    assert found.zero == round(255 / 4)
    assert Range(0.0, 6.0).zero == 0
    assert Range(0.0, 0.0).step == 1.0


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_nothing_is_measured_without_inputs_and_of_what_is_not_finite(
    value: float, graph: Graph, tmp_path: Path
) -> None:
    assert measure(Subject(graph, [], tmp_path), ["x"]) == {}
    feeds: list[Feeds] = [{"x": np.full((1, 8, 12, 12), each, np.float32)} for each in (value, 1.0)]
    assert measure(Subject(graph, feeds, tmp_path), ["x"]) == {}
