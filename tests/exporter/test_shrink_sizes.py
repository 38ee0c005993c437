"""Sizes that a graph reads from its values: those of channels that are cut follow, others stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from seed_exporter.shrink.run import shrink
from tests.exporter.support.pruned_models import Builder, shrunk

IMAGE = ["n", 3, 8, 8]


def test_a_number_of_channels_that_the_graph_reads_stays_what_it_is():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    count = b.node("Cast", b.node("Gather", b.node("Shape", hidden), b.constant([1])), to=TensorProto.FLOAT)
    factor = b.node("Reshape", count, b.constant([1, 1, 1, 1]))
    _, shapes = shrunk(b, b.node("Mul", b.conv(hidden, "last", 5, 8), factor))
    assert shapes["a"] == (4, 3, 1, 1)


def test_channels_whose_number_an_operator_reads_stay():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3, dead=range(4))
    count = b.node("Cast", b.node("Size", hidden), to=TensorProto.FLOAT)
    _, shapes = shrunk(b, b.node("Mul", b.conv(hidden, "last", 5, 8), count))
    assert shapes["a"] == (8, 3, 1, 1)


@pytest.mark.parametrize("to", [TensorProto.INT32, TensorProto.INT64])
def test_a_shape_that_is_computed_from_static_sizes_follows_the_cut(to: int):
    """As exporters of traced models write x.view(n, 2, c // 2, -1) and back."""
    b = Builder(x=["n", 3, 8, 8])
    hidden = b.conv("x", "a", 16, 3, dead=range(8))
    read = b.node("Cast", b.node("Shape", hidden), to=to)
    batch = b.node("Slice", read, b.constant([0]), b.constant([1]), b.constant([0]))
    count = b.node("Unsqueeze", b.node("Gather", read, b.constant(np.array(1))), b.constant([0]))
    half = b.node("Div", count, b.constant(np.array([2], np.int32 if to == TensorProto.INT32 else np.int64)))
    wide = [b.node("Cast", each, to=TensorProto.INT64) for each in (batch, half)]
    sizes = b.node("Concat", wide[0], b.constant([2]), wide[1], b.constant([-1]), axis=0)
    parts = b.node("Reshape", hidden, sizes)
    joined = b.node("Reshape", b.node("Relu", parts), b.constant([0, -1, 8, 8]))
    _, shapes = shrunk(b, b.conv(joined, "last", 5, 16))
    assert shapes["a"] == (8, 3, 1, 1)


def test_a_graph_without_dead_channels_keeps_the_sizes_that_it_computes():
    b = Builder(x=IMAGE)
    hidden = b.conv("x", "a", 8, 3)
    sizes = b.node("Concat", b.node("Shape", hidden, end=2), b.constant([-1]), axis=0)
    graph = b.graph(b.node("Reshape", hidden, sizes))
    assert shrink(graph) is graph
