"""Follow channels through a graph: which are constant, which are read by nobody, which belong together."""

from __future__ import annotations

import onnx

from seed_exporter.graph.index import subgraphs, used_names
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import plain_domain
from seed_exporter.shrink.registry import BarrierError, Call
from seed_exporter.shrink.rules import RULES
from seed_exporter.shrink.values import Values


def analyse(graph: Graph, grain: int = 0) -> Values:
    """Ask the rules of all nodes, and return what is known of the graph's values then.

    Args:
        graph: the graph; its nodes stand in order.
        grain: where a reshape divides an axis, the number of the one of the new axes whose channels are cut, from the
            outermost; the innermost if there are fewer. Of grouped convolutions, 0 cuts groups and 1 within all groups.
    """
    values = Values(graph)
    for position, node in enumerate(values.nodes):
        _follow(Call(values, position, node, grain), values, node)
    for value in graph.model.graph.output:
        values.block(value.name)
    return values


def _follow(call: Call, values: Values, node: onnx.NodeProto) -> None:
    rule = None if plain_domain(node.domain) else RULES.get(node.op_type)
    if rule is not None:
        try:
            rule(call)
        except BarrierError:
            call.forget()
            values.forget(node.output)
    call.block_unseen()
    for inner in subgraphs(node):
        for name in used_names(inner):
            values.block(name)
