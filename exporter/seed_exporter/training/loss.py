"""Write the losses behind a model: sums over all elements, each times a factor that the device gives.

A factor of 0 leaves a loss out, and 1 / n makes the mean of a sum, whatever the size of the batches it is taken over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import onnx
from onnx import TensorProto, helper

from seed_exporter.gradients.emitter import Emitter
from seed_exporter.graph.edit import with_graph
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.training.roles import Roles
from seed_runtime.skeletons.training import COSINE, CROSS_ENTROPY, LOSS, SQUARED_ERROR, TARGET

_LEAST_SQUARE: Final = 1e-24
"""Added to squared lengths, so that a vector of zeros has a cosine of 0."""


def with_loss(graph: Graph, roles: Roles) -> Graph:
    """Return a graph with the loss as its last output, and its inputs: the target, and a factor for each loss.

    - cross-entropy: -sum t log p of the classes' shares p, so that positions whose targets are all 0 don't count; of
      decisions that are each their own, -sum t log p + (1 - t) log (1 - p);
    - squared error: sum (y - t)^2;
    - cosine: sum 1 - cos(y, t) over all vectors along the last axis.

    Args:
        graph: prepared, with all its types stated.
        roles: of this graph.
    """
    emit, main = Emitter(graph.model.graph), graph.model.graph
    y, z = roles.output.name, roles.scores
    if roles.axis is None:
        entropies = emit("Sub", emit("Softplus", z), emit("Mul", z, TARGET))
        entropy = emit("ReduceSum", entropies, keepdims=0)
    else:
        shares = emit("LogSoftmax", z, axis=roles.axis)
        entropy = emit("Neg", emit("ReduceSum", emit("Mul", shares, TARGET), keepdims=0))
    rest = emit("Sub", y, TARGET)
    squares = emit("ReduceSum", emit("Mul", rest, rest), keepdims=0)
    one = emit.scalar(1.0, TensorProto.FLOAT)
    cosines = emit("ReduceSum", emit("Sub", one, _cosine(emit, y, TARGET)), keepdims=0)
    names = (cross_entropy_name(roles), SQUARED_ERROR, COSINE)
    terms = [emit("Mul", name, value) for name, value in zip(names, (entropy, squares, cosines), strict=True)]
    emit.nodes.append(helper.make_node("Sum", terms, [LOSS]))
    factors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in names]
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    edited = copy_of(
        main,
        node=[*main.node, *emit.nodes],
        initializer=[*main.initializer, *emit.initializers],
        input=[*main.input, onnx.ValueInfoProto(name=TARGET, type=roles.output.type), *factors],
        output=[*main.output, helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, [])],
    )
    return with_graph(replace(graph, model=model), edited)


def cross_entropy_name(roles: Roles) -> str:
    """Return the name of the cross-entropy's factor, which says the axis of the classes."""
    return CROSS_ENTROPY if roles.axis is None else f"{CROSS_ENTROPY}.{roles.axis}"


def _cosine(emit: Emitter, y: str, target: str) -> str:
    last = emit.integers([-1])
    product = emit("ReduceSum", emit("Mul", y, target), last, keepdims=0)
    least = emit.scalar(_LEAST_SQUARE, TensorProto.FLOAT)
    squares = [emit("ReduceSum", emit("Mul", each, each), last, keepdims=0) for each in (y, target)]
    # The root of a product of squares would be 0 where both are small.
    return emit("Div", product, emit("Mul", *(emit("Sqrt", emit("Add", square, least)) for square in squares)))
