"""Give channels the means that they have in the original again: by their biases, without gradients.

What a batch norm's estimated statistics are to a model that has batch norms, this is to one in which they are folded
into the weights: rounding moves the mean of a channel, and what comes after it was trained to see another one.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.evaluate import run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.edit import FreshNames, rename_uses, with_graph, with_outputs
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of
from seed_exporter.training.prepare import BIASED
from seed_runtime.backends import Array, Feeds

_BIAS_INPUT: Final = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "BatchNormalization": 2, "LayerNormalization": 2}
"""Input that is a bias, by operator."""
_SECOND: Final = frozenset({"Conv", "ConvTranspose", "BatchNormalization"})
"""Operators whose channels are the second axis; those of others are the last one."""
_AXES_AS_INPUT: Final = 18
"""Opset from which on a mean takes its axes as an input."""


Weights = Callable[[Weight], Array]
"""Gives the data of one weight, in the layout of `Weight.data`."""


@dataclass(frozen=True)
class Bias:
    """A vector that is added to a value.

    Attributes:
        name: of the vector.
        value: the sum.
        axis: axis of the value that has the vector's elements.
        rank: number of the value's axes.
    """

    name: str
    value: str
    axis: int
    rank: int


def find_biases(graph: Graph, allowed: frozenset[str]) -> list[Bias]:
    """Return the biases of a graph, each of a vector that one node reads; its types must be stated."""
    index = GraphIndex(graph)
    return [
        bias
        for node in index.graph.node
        for bias in _biases(node, index, graph)
        if bias.name in allowed and len(index.consumers[bias.name]) == 1
    ]


def _biases(node: onnx.NodeProto, index: GraphIndex, graph: Graph) -> Iterator[Bias]:
    shape = index.shapes.get(node.output[0]) if node.output else None
    if shape is None:
        return
    place = _BIAS_INPUT.get(node.op_type)
    if place is not None and len(node.input) > place:
        yield Bias(node.input[place], node.output[0], 1 if node.op_type in _SECOND else len(shape) - 1, len(shape))
    if node.op_type == "Add":
        for at, name in enumerate(node.input):
            maker = index.producers.get(node.input[1 - at])
            if name in graph.weights and maker is not None and maker.op_type in BIASED:
                dims = graph.weights[name].shape
                long = [place for place, size in enumerate(dims) if size > 1]
                if len(long) == 1:
                    yield Bias(name, node.output[0], len(shape) - len(dims) + long[0], len(shape))


def corrected(
    graph: Graph, coded: Weights, allowed: frozenset[str], batches: Sequence[Feeds], folder: Path
) -> dict[str, Array]:
    """Return values of biases with which channels have the original's means, each behind those before it.

    Args:
        graph: with the original's weights, its types stated.
        coded: the weights that a device has.
        allowed: vectors that may change.
        batches: inputs to measure on, many samples each.
        folder: for the models.
    """
    biases = find_biases(graph, allowed)
    if not biases:
        return {}
    goals = _measured(*_with_means(graph, biases), None, batches, folder)
    shifts = _measured(*_with_means(graph, biases, goals), coded, batches, folder)
    values = {}
    for bias, shift in zip(biases, shifts, strict=True):
        old = coded(graph.weights[bias.name])
        # A Gemm's may be a column, with no element for each channel.
        if shift.size == old.size and np.isfinite(shift).all():
            values[bias.name] = (old + shift.reshape(old.shape)).astype(np.float32)
    return values


def _measured(
    graph: Graph, names: Sequence[str], weights: Weights | None, batches: Sequence[Feeds], folder: Path
) -> list[npt.NDArray[np.float64]]:
    """Return the mean of some outputs over all batches."""
    write_model_files(graph, folder, weights)
    sums = [np.zeros(1)] * len(names)
    for outputs in run.iterate_outputs(folder, batches, threads=1):
        sums = [total + outputs[name] for total, name in zip(sums, names, strict=True)]
    return [total / len(batches) for total in sums]


def _with_means(
    graph: Graph, biases: Sequence[Bias], goals: Sequence[npt.NDArray[np.float64]] | None = None
) -> tuple[Graph, list[str]]:
    """Return the graph with the mean of each biased value as an output, and the names of these.

    With goals, each value is moved to its goal, what comes behind it sees that, and the outputs are how far.
    """
    main, fresh = copy_of(graph.model.graph), FreshNames(graph)
    added, constants, names = dict[str, list[onnx.NodeProto]](), list[onnx.TensorProto](), list[str]()
    as_input = opset_of(graph.model) >= _AXES_AS_INPUT
    for number, bias in enumerate(biases):
        axes = [axis for axis in range(bias.rank) if axis != bias.axis]
        mean = fresh.take(f"{bias.value}_mean")
        if as_input:
            constant = fresh.take(f"{bias.value}_axes")
            constants.append(helper.make_tensor(constant, TensorProto.INT64, [len(axes)], axes))
            nodes = [helper.make_node("ReduceMean", [bias.value, constant], [mean], keepdims=1)]
        else:
            nodes = [helper.make_node("ReduceMean", [bias.value], [mean], axes=axes, keepdims=1)]
        if goals is not None:
            goal, shift, moved = (fresh.take(f"{bias.value}_{word}") for word in ("goal", "shift", "moved"))
            constants.append(numpy_helper.from_array(goals[number].astype(np.float32), goal))
            main = rename_uses(main, {bias.value: moved})
            nodes.append(helper.make_node("Sub", [goal, mean], [shift]))
            nodes.append(helper.make_node("Add", [bias.value, shift], [moved]))
        added[bias.value] = nodes
        names.append(mean if goals is None else shift)
    nodes = [
        each for node in main.node for each in (node, *(new for name in node.output for new in added.get(name, ())))
    ]
    edited = copy_of(main, node=nodes, initializer=[*main.initializer, *constants])
    return with_outputs(with_graph(graph, edited), names), names
