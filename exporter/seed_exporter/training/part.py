"""Build the part of a seed that a device joins to the skeleton to train the model (SPEC.md, "Training").

It is built of a skeleton, whose names it uses, and holds nothing of it: a device puts the bytes of both one behind the
other, and reads one ModelProto whose graph has the nodes, inputs and outputs of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.gradients import gradient_graph, gradient_name, refused_nodes
from seed_exporter.gradients.typed import typed_model
from seed_exporter.graph.edit import FreshNames
from seed_exporter.graph.index import GraphIndex, all_graphs, subgraphs, used_names
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.skeletons import Skeleton, builder_for
from seed_exporter.training.loss import cross_entropy_name, with_loss
from seed_exporter.training.roles import Roles, find_roles
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.format.parts.onnx_skeleton import number_name
from seed_runtime.skeletons.training import (
    COSINE,
    FEATURES,
    LEVELS,
    LOSS,
    MEAN,
    SMALL,
    SQUARED_ERROR,
    TARGET,
    VARIANCE,
    scan_training,
)

_TENSOR_OUTPUTS: Final = (*LEVELS, MEAN, VARIANCE)
"""What the names of outputs begin with that belong to a weight; its name follows behind a dot."""


def training_part(graph: Graph, order: Sequence[str]) -> bytes:
    """Return the part that belongs to the skeleton of this order of the weights.

    Args:
        graph: a prepared graph.
        order: the name of each weight once.

    Raises:
        UnsupportedError: nothing of the model can be trained; the message names the operator that is in the way.
    """
    return _part(graph, tuple(order))


@lru_cache(maxsize=4)
def _part(graph: Graph, order: tuple[str, ...]) -> bytes:
    """Build the part; a search asks for the same one at each size."""
    first, template = _template(graph)
    second = builder_for(graph).build_unchecked(order)
    # Only weights have other names in another order.
    names = {hole.name: second.names + number_name(number) for number, hole in enumerate(second.holes)}
    moved = {first.names + number_name(number): names[hole.name] for number, hole in enumerate(first.holes)}
    for prefix in _TENSOR_OUTPUTS:
        moved |= {f"{prefix}.{old}": f"{prefix}.{new}" for old, new in moved.items() if "." not in old}
    part = onnx.ModelProto()
    part.CopyFrom(template)
    _rename(part.graph, lambda name: moved.get(name, name))
    data = part.SerializeToString(deterministic=True)
    _check(second, data)
    return data


def _check(skeleton: Skeleton, part: bytes) -> None:
    """Raise UnsupportedError unless a device accepts the part beside the skeleton."""
    try:
        scan_training(part, skeleton.data, skeleton.holes)
    except FormatError as error:
        raise UnsupportedError(
            f"no device would accept this model's training graph: {error.where}: {error.problem}; export it without "
            f"--finetune-graph"
        ) from error


@lru_cache(maxsize=2)
def _template(graph: Graph) -> tuple[Skeleton, onnx.ModelProto]:
    """Return the skeleton of the graph's own order, and what is joined to that one."""
    skeleton = builder_for(graph).build_unchecked(list(graph.weights))
    main = _with_names_of(skeleton)
    roles = find_roles(main)
    if graph.trained is not None:
        held = {skeleton.names + number_name(number): hole.name for number, hole in enumerate(skeleton.holes)}
        roles = replace(roles, levels={name: SMALL for name in roles.levels if held[name] in graph.trained})
    compared = with_loss(main, roles)
    trained = _trained(compared, list(roles.levels))
    whole = gradient_graph(compared, [LOSS], trained).model.graph
    part = onnx.ModelProto()
    nodes, initializers = _added(whole, main.model.graph)
    part.graph.node.extend([*nodes, *_role_nodes(roles, FreshNames(whole))])
    part.graph.initializer.extend([*initializers, helper.make_tensor(gradient_name(LOSS), TensorProto.FLOAT, [], [1])])
    statistics = [name for norm in roles.norms for name in (norm.mean, norm.variance)]
    part.graph.input.extend(
        [
            onnx.ValueInfoProto(name=TARGET, type=roles.output.type),
            *(_stated(name, []) for name in (cross_entropy_name(roles), SQUARED_ERROR, COSINE)),
            *(_stated(name, main.weights[name].shape) for name in [*trained, *statistics]),
        ]
    )
    given = {gradient_name(name): f"{roles.levels[name]}.{name}" for name in trained}
    outputs = [LOSS, *([FEATURES] if roles.features else ()), *given.values()]
    outputs += [
        f"{what}.{name}" for norm in roles.norms for what, name in ((MEAN, norm.mean), (VARIANCE, norm.variance))
    ]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    _rename(part.graph, lambda name: given.get(name, name))
    _shorten(part.graph, keep={*outputs, *(value.name for value in part.graph.input)})
    return skeleton, part


def _stated(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _with_names_of(skeleton: Skeleton) -> Graph:
    """Return the graph of a skeleton, with its types, under the names that values have there; weights are zeros."""
    model = onnx.load_model_from_string(skeleton.data)
    weights = {}
    for number, hole in enumerate(skeleton.holes):
        name = skeleton.names + number_name(number)
        zeros = np.broadcast_to(np.zeros((), hole.dtype.storage), hole.dims)
        weights[name] = Weight(name, hole.dtype, hole.dims, zeros)
    graph = Graph(model, weights)
    return replace(graph, model=typed_model(graph))


def _trained(graph: Graph, candidates: Sequence[str]) -> list[str]:
    """Return the tensors that the loss depends on, and through nothing but operators that have gradients."""
    index = GraphIndex(graph)
    found = [name for name in candidates if name in _ancestors(index, [LOSS])]
    reason = "no weight of float32 is behind its output"
    while found and (refused := refused_nodes(graph, [LOSS], found)):
        behind = _ancestors(index, [name for node in refused for name in _reads(node)])
        found = [name for name in found if name not in behind]
        reason = f"{refused[0].op_type} has no gradient"
    if not found:
        raise UnsupportedError(f"this model can't be trained: {reason}; export it without --finetune-graph")
    return found


def _ancestors(index: GraphIndex, names: Sequence[str]) -> Set[str]:
    """Return the values that values depend on, those included."""
    found, waiting = set(names), list(names)
    while waiting:
        node = index.producers.get(waiting.pop())
        added = _reads(node) - found if node is not None else set()
        found |= added
        waiting += added
    return found


def _reads(node: onnx.NodeProto) -> set[str]:
    return set(node.input).union(*(used_names(inner) for inner in subgraphs(node))) - {""}


def _added(whole: onnx.GraphProto, main: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes and constants of a graph that another one lacks.

    A rule may ask a node of the model for one more output. The model stays as it is, so that node is computed twice.
    """
    known, fresh = GraphIndex(main).definitions, FreshNames(whole)
    again: list[onnx.NodeProto] = []
    nodes: list[onnx.NodeProto] = []
    for node in whole.node:
        is_own = [name in known for name in node.output if name]
        if not any(is_own):
            nodes.append(node)
        elif not all(is_own):
            again.append(onnx.NodeProto())
            again[-1].CopyFrom(node)
            again[-1].output[:] = [fresh.take(name) if name in known else name for name in node.output]
    return [*again, *nodes], [tensor for tensor in whole.initializer if tensor.name not in known]


def _role_nodes(roles: Roles, fresh: FreshNames) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that give the head's features, and what the batch norms see of a batch."""
    if roles.features:
        yield helper.make_node("Identity", [roles.features], [FEATURES])
    for norm in roles.norms:
        made = [fresh.take("normalized"), f"{MEAN}.{norm.mean}", f"{VARIANCE}.{norm.variance}"]
        node = helper.make_node("BatchNormalization", norm.node.input, made, training_mode=1, momentum=0.0)
        yield node


def _shorten(graph: onnx.GraphProto, keep: Set[str]) -> None:
    """Replace the names of values that the part makes and that have no role: by numbers behind a dot."""
    made = [tensor.name for tensor in graph.initializer]
    for inner in all_graphs(graph):
        made += [value.name for value in inner.input if inner is not graph]
        made += [name for node in inner.node for name in node.output if name]
        made += [tensor.name for tensor in inner.initializer if inner is not graph]
    own = [name for name in dict.fromkeys(made) if name not in keep]
    names = {name: f".{number_name(number)}" for number, name in enumerate(own)}
    _rename(graph, lambda name: names.get(name, name))


def _rename(graph: onnx.GraphProto, renamed: Callable[[str], str]) -> None:
    for inner in all_graphs(graph):
        for each in (*inner.input, *inner.output, *inner.initializer):
            each.name = renamed(each.name)
        for node in inner.node:
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
