"""Change inputs until a model's batch norms see the means and variances that they saw in training.

Random inputs leave most of what a network has learned unused. Those stored statistics are all that an ONNX file says of
its real inputs, and inputs that have them at every batch norm excite the layers between much as real ones do.

Source: Yin et al., "Dreaming to distill: data-free knowledge transfer via DeepInversion" (CVPR 2020), the term of the
batch norms alone; Kingma and Ba, "Adam" (ICLR 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.calibrate.activations import sizes_of
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.gradients import gradient_graph, gradient_name, missing_rules
from seed_exporter.gradients.typed import typed_model
from seed_exporter.graph.edit import FreshNames, drop_unused, with_graph
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_runtime import backends
from seed_runtime.backends import Array, Feeds
from seed_runtime.errors import SeedError
from seed_runtime.system.scratch import scratch_folder

F32 = npt.NDArray[np.float32]

ITERATIONS: Final = 16
"""Number of times that each input is changed."""
INPUTS_LEAST: Final = 16
"""Number of inputs below which none is changed. With 8 and half of the iterations EfficientNet-lite0 gained nothing
over smooth pictures, for 48 s of a core; PP-OCR's classifier gains .13 bit a weight with 16."""
WORK_MAX: Final = 512 << 20
"""Size of what the batch norms read of all inputs from which on no more are changed: time grows with it [B]."""
RATE: Final = 0.2
"""Largest change of an element at once, in standard deviations of the inputs; it falls to 0 over the second half."""
LEVELS: Final = ((0.0, 0.5), (0.0, 1.0), (0.5, 0.25), (128.0, 64.0))
"""Mean and standard deviation of inputs to begin with, of which the ones nearest to the stored statistics are taken:
normalized pictures, numbers of scale 1, pictures from 0 to 1, and from 0 to 255."""
MEMORY_MAX: Final = 128 << 20
"""Size of what the batch norms of a batch read, which decides how many inputs are in it; a run takes about four times
as much [B]."""

_DECAYS: Final = (0.9, 0.99)
"""Decays of Adam's means of gradients and of their squares."""
_EPSILON: Final = 1e-5
"""Variance below which a channel counts as constant."""


@dataclass(frozen=True)
class Norm:
    """Batch norm with stored statistics.

    Attributes:
        value: what it normalizes.
        means: of each channel.
        variances: of each channel.
    """

    value: str
    means: F32
    variances: F32


def batch_norms(graph: Graph) -> list[Norm]:
    """Return the batch norms of the main graph whose statistics are stored, in its order."""
    inline = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    known = GraphIndex(graph).producers.keys() | {value.name for value in graph.model.graph.input}

    def values_of(name: str) -> F32 | None:
        if name in graph.weights:
            weight = graph.weights[name]
            return np.asarray(weight.data, np.float32).reshape(-1) if weight.dtype.name == "float32" else None
        tensor = inline.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        return numpy_helper.to_array(tensor).reshape(-1)

    found = []
    for node in graph.model.graph.node:
        if node.op_type == "BatchNormalization" and len(node.input) >= 5 and node.input[0] in known:
            means, variances = values_of(node.input[3]), values_of(node.input[4])
            if means is not None and variances is not None and np.isfinite([means, variances]).all():
                found.append(Norm(node.input[0], means, np.maximum(variances, 0)))
    return found


def match(
    graph: Graph, feeds: Sequence[Feeds], names: Sequence[str], folder: Path, jobs: int
) -> list[dict[str, Array]] | None:
    """Change inputs until their statistics at all batch norms, taken over all feeds, are the stored ones.

    Args:
        graph: the model.
        feeds: inputs to begin with, one sample each and all of the same shapes.
        names: the inputs that are changed, of float32.
        folder: for models that are run.
        jobs: threads.

    Returns:
        The changed inputs, fewer than were given where the model is large; None where there are no batch norms, an
        operator has no gradient, or the model is too large.
    """
    norms = batch_norms(graph)
    if not norms or not feeds:
        return None
    try:
        loss = _loss_graph(graph, norms)
        outputs = [value.name for value in loss.model.graph.output]
        if missing_rules(loss, outputs[:1], names):
            return None
        built = gradient_graph(loss, outputs[:1], names)
        size = max(1, sum(sizes_of(graph, [norm.value for norm in norms], feeds[0], folder, jobs).values()))
        feeds = feeds[: WORK_MAX // size]
        if len(feeds) < INPUTS_LEAST:
            return None
        batch = max(1, min(len(feeds), MEMORY_MAX // size))
        with ExitStack() as stack:
            own = stack.enter_context(scratch_folder(folder))
            write_model_files(built, own)
            runner = backends.get().open(own, "fast", jobs)
            stack.callback(runner.close)
            return _descend(runner, feeds, names, outputs, batch)
    except SeedError:
        # Batches, or the gradients, are more than this model or backend takes.
        return None


def _descend(
    runner: backends.Runner, feeds: Sequence[Feeds], names: Sequence[str], outputs: Sequence[str], batch: int
) -> list[dict[str, Array]]:
    """Change the inputs batch by batch; each counts the latest statistics of the others."""
    starts = range(0, len(feeds), batch)
    batches = [_stacked(feeds[start : start + batch]) for start in starts]
    shares = [len(feeds[start : start + batch]) / len(feeds) for start in starts]
    deviation = _set_level(runner, batches, names, outputs)
    states: list[dict[str, tuple[F32, F32]]] = [
        {name: (np.zeros_like(each[name]), np.zeros_like(each[name])) for name in names} for each in batches
    ]
    loss, statistics = outputs
    zeros = _no_statistics(runner)
    seen = [
        runner.run(_inputs(each, zeros, share, loss), [statistics])[statistics]
        for each, share in zip(batches, shares, strict=True)
    ]
    for iteration in range(1, ITERATIONS + 1):
        rate = RATE * deviation * min(1.0, 2 * (ITERATIONS + 1 - iteration) / ITERATIONS)
        for number, each in enumerate(batches):
            others = sum((seen[other] for other in range(len(batches)) if other != number), start=zeros)
            found = runner.run(_inputs(each, others, shares[number], loss), [statistics, *map(gradient_name, names)])
            seen[number] = found[statistics]
            for name in names:
                gradient = np.nan_to_num(found[gradient_name(name)])
                first, second = states[number][name]
                first += (1 - _DECAYS[0]) * (gradient - first)
                second += (1 - _DECAYS[1]) * (np.square(gradient) - second)
                scale = np.sqrt(second / (1 - _DECAYS[1] ** iteration)) + np.float32(1e-20)
                each[name] -= np.float32(rate / (1 - _DECAYS[0] ** iteration)) * (first / scale)
    return [
        {name: array[index : index + 1] for name, array in each.items()}
        for each in batches
        for index in range(len(next(iter(each.values()))))
    ]


def _set_level(
    runner: backends.Runner, batches: Sequence[dict[str, Array]], names: Sequence[str], outputs: Sequence[str]
) -> float:
    """Give inputs the mean and deviation at which the first batch has the least loss, and return the deviation."""
    own = {name: np.concatenate([each[name] for each in batches]).std() or 1.0 for name in names}
    begun = batches[0]

    def at(each: dict[str, Array], mean: float, deviation: float) -> dict[str, Array]:
        moved = {name: (mean + deviation / own[name] * each[name]).astype(np.float32) for name in names}
        return {**each, **moved}

    def loss_at(level: tuple[float, float]) -> float:
        fed = _inputs(at(begun, *level), _no_statistics(runner), 1.0, outputs[0])
        return float(np.nan_to_num(runner.run(fed, outputs[:1])[outputs[0]], nan=np.inf))

    best = min(LEVELS, key=loss_at)
    for each in batches:
        each.update(at(each, *best))
    return best[1]


def _inputs(each: Feeds, rest: F32, share: float, loss: str) -> Feeds:
    fixed = {_REST: rest, _SHARE: np.array(share, np.float32), gradient_name(loss): np.ones((), np.float32)}
    return {**each, **fixed}


def _no_statistics(runner: backends.Runner) -> F32:
    width = next(spec.shape[0] for spec in runner.inputs if spec.name == _REST and spec.shape)
    return np.zeros(int(width or 0), np.float32)


def _stacked(feeds: Sequence[Feeds]) -> dict[str, Array]:
    return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}


_REST: Final = "statistics of other batches"
_SHARE: Final = "share of this batch"


def _loss_graph(graph: Graph, norms: Sequence[Norm]) -> Graph:
    """Return a graph whose outputs are the distance from the stored statistics, and this batch's share of its own.

    Statistics are the means of all channels and then the means of their squares, in one vector. Inputs _REST and
    _SHARE are added: the statistics that other batches contribute, and the factor of this batch's.
    """
    model = typed_model(graph)
    fresh = FreshNames(model.graph)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(values: Array) -> str:
        constants.append(numpy_helper.from_array(values, fresh.take("norm_constant")))
        return constants[-1].name

    def write(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [fresh.take("norm_value")], **attributes))
        return nodes[-1].output[0]

    axes = constant(np.array([0, 2]))
    means, squares = [], []
    for norm in norms:
        rows = write("Reshape", norm.value, constant(np.array([0, len(norm.means), -1])))
        means.append(write("ReduceMean", rows, axes, keepdims=0))
        squares.append(write("ReduceMean", write("Mul", rows, rows), axes, keepdims=0))
    own = write("Mul", write("Concat", *means, *squares, axis=0), _SHARE)
    width = sum(len(norm.means) for norm in norms)
    both = write("Add", own, _REST)
    ends = [constant(np.array([end])) for end in (0, width, 2 * width)]
    mean, square = write("Slice", both, ends[0], ends[1]), write("Slice", both, ends[1], ends[2])
    variance = np.concatenate([norm.variances for norm in norms]) + np.float32(_EPSILON)
    weights = np.concatenate([np.full(len(norm.means), 1 / (len(norm.means) * len(norms))) for norm in norms])
    moved = write("Sub", mean, constant(np.concatenate([norm.means for norm in norms])))
    moved = write("Mul", moved, constant((1 / np.sqrt(variance)).astype(np.float32)))
    least = constant(np.array([_EPSILON], np.float32))
    spread = write("Add", write("Relu", write("Sub", square, write("Mul", mean, mean))), least)
    # Half of the logarithm: of standard deviations, not of variances.
    scaled = write(
        "Mul", write("Log", write("Mul", spread, constant(1 / variance))), constant(np.array([0.5], np.float32))
    )
    terms = write("Add", write("Mul", moved, moved), write("Mul", scaled, scaled))
    loss = write("ReduceSum", write("Mul", terms, constant(weights.astype(np.float32))), keepdims=0)
    edited = copy_of(
        model.graph,
        node=[*model.graph.node, *nodes],
        initializer=[*model.graph.initializer, *constants],
        input=[
            *model.graph.input,
            helper.make_tensor_value_info(_REST, TensorProto.FLOAT, [2 * width]),
            helper.make_tensor_value_info(_SHARE, TensorProto.FLOAT, []),
        ],
        output=[
            helper.make_tensor_value_info(loss, TensorProto.FLOAT, []),
            helper.make_tensor_value_info(own, TensorProto.FLOAT, [2 * width]),
        ],
    )
    return with_graph(replace(graph, model=model), drop_unused(edited))
