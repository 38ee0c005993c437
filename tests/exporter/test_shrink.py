"""Dead channels are cut out of all kinds of structures, and outputs stay what they were."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter.loaders import load
from seed_exporter.shrink.run import shrink
from tests.exporter.support.onnx_models import tensor
from tests.exporter.support.pruned_models import Builder, run, shrunk

IMAGE = ["n", 3, 8, 8]


def ops(graph) -> list[str]:
    return [node.op_type for node in graph.model.graph.node]


def test_dead_rows_of_a_convolution_go_with_the_columns_that_read_them():
    b = Builder(x=IMAGE)
    hidden = b.node("Relu", b.conv("x", "first", 12, 3, 3, dead=[0, 1, 2, 3]))
    _, shapes = shrunk(b, b.conv(hidden, "second", 5, 12, 3))
    assert shapes["first"] == (8, 3, 3, 3)
    assert shapes["second"] == (5, 8, 3, 3)


def test_a_channel_that_nobody_reads_goes_with_its_row():
    b = Builder(x=IMAGE)
    hidden = b.node("Sigmoid", b.conv("x", "first", 12, 3, 3, bias=True))
    weight = b.weight("second", 5, 12, 3, 3, dead=range(4), axis=1)
    _, shapes = shrunk(b, b.node("Conv", hidden, weight))
    assert shapes["first"] == (8, 3, 3, 3)
    assert shapes["first.bias"] == (8,)


def test_a_constant_channel_is_added_to_the_next_bias():
    b = Builder(x=IMAGE)
    hidden = b.node("Sigmoid", b.conv("x", "first", 12, 3, 3, dead=range(4), bias=True))
    graph, shapes = shrunk(b, b.conv(hidden, "second", 5, 12, 1))
    assert shapes["second"] == (5, 8, 1, 1)
    assert len(graph.model.graph.node[-1].input) == 3


def test_a_constant_channel_other_than_zero_stays_before_a_padded_convolution():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "first", 12, 3, 3, dead=range(4), bias=True)
    _, shapes = shrunk(b, b.conv(hidden, "second", 5, 12, 3))
    assert shapes["first"] == (12, 3, 3, 3)


def test_channels_of_an_image_stay_a_multiple_of_four():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "first", 12, 3, dead=range(7))
    _, shapes = shrunk(b, b.conv(hidden, "second", 5, 12))
    assert shapes["first"] == (8, 3, 1, 1)


def test_a_residual_stream_loses_what_no_branch_adds():
    b = Builder(x=IMAGE)
    stream = b.conv("x", "stem", 16, 3, 3, dead=range(8))
    for block in range(2):
        inner = b.node("Relu", b.conv(stream, f"a{block}", 8, 16, dead=range(4)))
        stream = b.node("Relu", b.node("Add", stream, b.conv(inner, f"b{block}", 16, 8, 3, dead=range(4, 10 + block))))
    _, shapes = shrunk(b, b.conv(stream, "last", 5, 16))
    assert shapes["stem"] == (12, 3, 3, 3), "rows 0 to 3 live in the blocks, 8 to 15 in the stem"
    assert shapes["a0"] == (4, 12, 1, 1)
    assert shapes["b1"] == (12, 4, 3, 3)


def test_an_emptied_block_is_removed():
    b = Builder(x=IMAGE)
    stream = b.node("Relu", b.conv("x", "stem", 8, 3, 3))
    inner = b.node("Relu", b.conv(stream, "a", 8, 8, 3, dead=range(8)))
    stream = b.node("Add", stream, b.conv(inner, "b", 8, 8))
    graph, shapes = shrunk(b, b.conv(stream, "last", 5, 8))
    assert shapes.keys() == {"stem", "last"}
    assert ops(graph) == ["Conv", "Relu", "Conv"]


def test_a_block_that_adds_a_constant_leaves_the_constant():
    b = Builder(x=IMAGE)
    stream = b.node("Relu", b.conv("x", "stem", 8, 3, 3))
    inner = b.conv(stream, "a", 8, 8, 3, dead=range(8), bias=True)
    stream = b.node("Add", stream, inner)
    graph, shapes = shrunk(b, b.conv(stream, "last", 5, 8, 3))
    assert "a" not in shapes
    assert ops(graph) == ["Conv", "Relu", "Add", "Conv"]


def test_a_block_whose_branch_is_as_large_as_nobody_knows_stays():
    b = Builder(x=["n", 8, "h", "w"], y=["n", 8, "k", "l"])
    graph, shapes = shrunk(b, b.node("Add", "y", b.conv("x", "a", 8, 8, dead=range(8))), h=3, w=3, k=1, l=1)
    assert "a" in shapes, "y may be broadcast to the branch"
    assert "Add" in ops(graph)


def test_depthwise_convolutions_lose_what_they_get_and_what_they_make():
    b = Builder(x=IMAGE)
    hidden = b.node("Relu", b.conv("x", "expand", 16, 3, dead=range(4)))
    hidden = b.node(
        "Clip", b.conv(hidden, "depth", 16, 1, 3, dead=range(4, 8), group=16), "", b.constant(np.array(6, np.float32))
    )
    graph, shapes = shrunk(b, b.conv(hidden, "project", 5, 16))
    assert shapes["expand"] == (8, 3, 1, 1)
    assert shapes["depth"] == (8, 1, 3, 3)
    depthwise = next(node for node in graph.model.graph.node if shapes.get(node.input[-1]) == (8, 1, 3, 3))
    assert {each.name: each.i for each in depthwise.attribute}["group"] == 8


def test_groups_are_cut_whole():
    b = Builder(x=IMAGE)
    hidden = b.node("Relu", b.conv("x", "a", 16, 3, dead=[0, 1, 2, 3, 8]))
    hidden = b.conv(hidden, "grouped", 32, 4, 3, dead=[*range(8), 13], group=4)
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 32))
    assert shapes["grouped"] == (24, 4, 3, 3)
    assert shapes["a"] == (12, 3, 1, 1)


def test_groups_shrink_together_where_all_have_dead_channels():
    b = Builder(x=IMAGE)
    dead = [group * 8 + place for group in range(2) for place in range(4)]
    hidden = b.node("Relu", b.conv("x", "a", 16, 3, dead=dead))
    hidden = b.conv(hidden, "grouped", 16, 8, 3, dead=dead, group=2)
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 16))
    assert shapes["grouped"] == (8, 4, 3, 3)
    assert shapes["last"] == (5, 8, 1, 1)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_transposed_convolutions_are_cut(group: int):
    b = Builder(x=IMAGE)
    hidden = b.node("Relu", b.conv("x", "a", 8, 3, dead=range(4)))
    weight = b.weight("turned", 8, 8 // group, 2, 2)
    hidden = b.node("ConvTranspose", hidden, weight, strides=[2, 2], group=group)
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 8))
    assert shapes["a"] == (4, 3, 1, 1)
    assert shapes["turned"] == (4, 8 if group == 1 else 8 // group, 2, 2)


def test_concatenated_channels_keep_their_places():
    b = Builder(x=IMAGE)
    one = b.conv("x", "a", 8, 3, dead=range(4))
    two = b.conv("x", "b", 12, 3, dead=range(8, 12))
    joined = b.node("Relu", b.node("Concat", one, two, one, axis=1))
    _, shapes = shrunk(b, b.conv(joined, "last", 5, 28))
    assert shapes["a"] == (4, 3, 1, 1)
    assert shapes["b"] == (8, 3, 1, 1)
    assert shapes["last"] == (5, 16, 1, 1)


@pytest.mark.parametrize("opset", [12, 18])
def test_split_and_sliced_channels_keep_their_places(opset: int):
    b = Builder(x=IMAGE, opset=opset)
    hidden = b.conv("x", "a", 24, 3, dead=[0, 1, 2, 3, 12, 13, 14, 15])
    sizes = [8, 16]
    one, two = (
        b.nodes("Split", 2, hidden, axis=1, split=sizes)
        if opset < 13
        else b.nodes("Split", 2, hidden, b.constant(sizes), axis=1)
    )
    part = b.node("Slice", hidden, b.constant([4]), b.constant([20]), b.constant([1]))
    joined = b.node("Concat", b.node("Relu", one), two, part, axis=1)
    _, shapes = shrunk(b, b.conv(joined, "last", 5, 40))
    assert shapes["a"] == (16, 3, 1, 1)
    assert shapes["last"] == (5, 28, 1, 1)


def test_gathered_channels_keep_their_places():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    shuffled = b.node("Gather", hidden, b.constant([7, 0, 6, 1, 5, 2, 4, 3]), axis=1)
    _, shapes = shrunk(b, b.conv(shuffled, "last", 5, 8))
    assert shapes["last"] == (5, 4, 1, 1)


def test_squeeze_and_excitation_is_cut_with_its_image():
    b = Builder(x=IMAGE)
    hidden = b.node("HardSwish", b.conv("x", "a", 16, 3, 3, dead=range(8)))
    pooled = b.node("GlobalAveragePool", hidden)
    gate = b.node("Relu", b.conv(pooled, "down", 8, 16, dead=range(4), bias=True))
    gate = b.node("HardSigmoid", b.conv(gate, "up", 16, 8, bias=True))
    _, shapes = shrunk(b, b.conv(b.node("Mul", hidden, gate), "last", 5, 16))
    assert shapes["a"] == (8, 3, 3, 3)
    assert shapes["down"] == (4, 8, 1, 1)
    assert shapes["up"] == (8, 4, 1, 1)


def test_batch_norms_are_cut_and_their_constants_folded():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 40, 3, 3, dead=range(20))
    vectors = [b.constant(b.rng.uniform(0.5, 1, 40).astype(np.float32), name) for name in ("s", "o", "m", "v")]
    hidden = b.node("PRelu", b.node("BatchNormalization", hidden, *vectors), b.weight("slope", 40, 1, 1))
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 40))
    assert shapes["a"] == (20, 3, 3, 3)
    assert shapes["s"] == (20,)
    assert shapes["slope"] == (20, 1, 1)


def test_channels_of_a_pooled_image_stay_a_multiple_of_sixteen():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 40, 3, dead=range(20))
    hidden = b.node("MaxPool", hidden, kernel_shape=[2, 2], strides=[2, 2])
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 40))
    assert shapes["a"] == (32, 3, 1, 1)


def test_resized_and_padded_images_are_cut():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    hidden = b.node("Resize", hidden, "", b.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    hidden = b.node("Pad", hidden, b.constant([0, 0, 1, 1, 0, 0, 1, 1]))
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 8, 3))
    assert shapes["last"] == (5, 4, 3, 3)


@pytest.mark.parametrize("way", ["padded", "averaged"])
def test_a_constant_other_than_zero_is_none_where_zeros_are_put_around_the_image(way: str):
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 32, 3, dead=range(16), bias=True)
    if way == "padded":
        hidden = b.node("Pad", hidden, b.constant([0, 0, 1, 1, 0, 0, 1, 1]))
    else:
        hidden = b.node("AveragePool", hidden, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 32))
    assert shapes["a"] == (32, 3, 1, 1)


def test_of_two_axes_that_are_flattened_into_one_only_one_is_cut():
    b = Builder(x=["n", 3, 8])
    hidden = b.node("Conv", "x", b.weight("a", 8, 3, 1, dead=range(4)))
    hidden = b.node("Flatten", b.node("MatMul", hidden, b.weight("up", 8, 6, dead=range(3), axis=1)))
    _, shapes = shrunk(b, b.node("Gemm", hidden, b.weight("fc", 48, 5)))
    assert shapes["a"] == (8, 3, 1)
    assert shapes["up"] == (8, 3)
    assert shapes["fc"] == (24, 5)


@pytest.mark.parametrize("shape", [[0, -1], [2, 64], None])
def test_a_flattened_image_loses_blocks_of_columns(shape: list[int] | None):
    b = Builder(x=[2, 3, 4, 4])
    hidden = b.node("Relu", b.conv("x", "a", 4, 3, dead=[1, 2]))
    flat = b.node("Flatten", hidden) if shape is None else b.node("Reshape", hidden, b.constant(shape))
    _, shapes = shrunk(b, b.node("Gemm", flat, b.weight("fc", 5, 64), transB=1))
    assert shapes["a"] == (2, 3, 1, 1)
    assert shapes["fc"] == (5, 32)


def test_channels_behind_an_operator_without_a_rule_stay():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    hidden = b.node("LRN", hidden, size=3)
    _, shapes = shrunk(b, b.conv(hidden, "last", 5, 8))
    assert shapes["a"] == (8, 3, 1, 1)


@pytest.mark.parametrize("op", ["LayerNormalization", "Softmax", "ReduceMean"])
def test_channels_of_which_a_statistic_is_taken_stay_even_if_nobody_reads_them(op: str):
    b = Builder(x=["n", 6])
    hidden = b.node("MatMul", "x", b.weight("up", 6, 16, dead=range(4), axis=1))
    if op == "LayerNormalization":
        hidden = b.node(op, hidden, b.weight("scale", 16), axis=-1)
    elif op == "Softmax":
        hidden = b.node(op, hidden, axis=-1)
    else:
        hidden = b.node("Sub", hidden, b.node(op, hidden, b.constant([1])))
    _, shapes = shrunk(b, b.node("MatMul", hidden, b.weight("down", 16, 3, dead=range(8))))
    assert shapes["up"] == (6, 16)
    assert shapes["down"] == (16, 3)


def test_dead_channels_of_an_output_stay():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    _, shapes = shrunk(b, hidden, b.conv(hidden, "last", 8, 8, dead=range(4)))
    assert shapes["a"] == (8, 3, 1, 1)
    assert shapes["last"] == (8, 8, 1, 1)


def test_a_weight_that_two_layers_share_is_cut_where_both_can_spare_it():
    b = Builder(x=["n", 8])
    shared = b.weight("shared", 8, 8, dead=[0, 1, 2], axis=1)
    hidden = b.node("Relu", b.node("MatMul", "x", b.weight("up", 8, 8, dead=[0, 1, 2, 3], axis=1)))
    hidden = b.node("Relu", b.node("MatMul", hidden, shared))
    hidden = b.node("Relu", b.node("MatMul", hidden, shared))
    _, shapes = shrunk(b, b.node("MatMul", hidden, b.weight("down", 8, 3)))
    assert shapes["shared"] == (5, 5)
    assert shapes["up"] == (8, 5)


def test_a_model_of_which_everything_is_dead_still_runs():
    b = Builder(x=IMAGE)
    hidden = b.node("Relu", b.conv("x", "a", 8, 3, 3, dead=range(8), bias=True))
    _, shapes = shrunk(
        b, b.conv(b.node("Relu", b.conv(hidden, "b", 8, 8, 3, dead=range(8))), "last", 5, 8, 3, dead=range(5))
    )
    assert shapes["b"][0] >= 1


def test_channels_that_a_nested_graph_reads_stay():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    other = b.conv("x", "b", 8, 3, dead=range(4))
    branch = helper.make_graph(
        [helper.make_node("Relu", [hidden], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    flag = b.constant(np.array(True))
    chosen = b.node("If", flag, then_branch=branch, else_branch=branch)
    _, shapes = shrunk(b, b.conv(chosen, "last", 5, 8), b.conv(other, "free", 5, 8))
    assert shapes["a"] == (8, 3, 1, 1)
    assert shapes["b"] == (4, 3, 1, 1)


def test_a_weight_that_callers_can_replace_stays():
    b = Builder(x=["n", 6])
    hidden = b.node("MatMul", "x", b.weight("up", 6, 16, dead=range(4), axis=1))
    out = b.node("MatMul", hidden, b.weight("down", 16, 3))
    model = onnx.ModelProto()
    graph = b.graph(out)
    model.CopyFrom(graph.model)
    model.graph.input.append(helper.make_tensor_value_info("up", TensorProto.FLOAT, [6, 16]))
    for each in model.graph.initializer:
        each.CopyFrom(tensor(graph.weights[each.name].data, each.name))
    loaded = load(model)
    assert shrink(loaded) is loaded


def test_names_and_shapes_of_inputs_and_outputs_stay():
    b = Builder(x=IMAGE)
    out = b.conv(b.conv("x", "a", 8, 3, dead=range(4)), "last", 5, 8)
    before = b.graph(out)
    after = shrink(before)
    assert list(after.model.graph.input) == list(before.model.graph.input)
    assert list(after.model.graph.output) == list(before.model.graph.output)


def test_cutting_zeros_changes_no_bit_where_sums_are_exact():
    b = Builder(x=["n", 8])
    matrix = b.rng.integers(-8, 8, (8, 64)).astype(np.float32)
    matrix[:, 16:48] = 0
    hidden = b.node("Relu", b.node("MatMul", "x", b.constant(matrix, "up")))
    down = b.constant(b.rng.integers(-8, 8, (64, 3)).astype(np.float32), "down")
    before = b.graph(b.node("MatMul", hidden, down))
    after = shrink(before)
    assert after.weights["down"].shape == (32, 3)
    feeds = {"x": b.rng.integers(-8, 8, (16, 8)).astype(np.float32)}
    assert np.array_equal(run(before, feeds)[0], run(after, feeds)[0])


def test_the_graph_itself_is_returned_where_nothing_is_dead():
    b = Builder(x=IMAGE)
    graph = b.graph(b.conv(b.conv("x", "a", 8, 3), "last", 5, 8))
    assert shrink(graph) is graph
