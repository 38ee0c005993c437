"""Build the graph of gradients: reverse mode from a graph to a graph.

The nodes of the forward graph stay; behind them stand, in reverse order, what the rule of each node writes. Only nodes
on a path of floats from `wrt` to `outputs` need a rule.
Source: Griewank and Walther, "Evaluating Derivatives", chapter 3 (the reverse mode).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from seed_exporter.gradients import rules  # noqa: F401  (importing the rules registers them)
from seed_exporter.gradients.emitter import FLOATS, Emitter
from seed_exporter.gradients.registry import Call, RefusedError, find
from seed_exporter.gradients.typed import typed_model
from seed_exporter.graph.edit import drop_unused, with_graph
from seed_exporter.graph.index import subgraphs, used_names, with_uses
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of
from seed_runtime.errors import UnsupportedError


def gradient_name(name: str) -> str:
    """Return the name under which a graph of gradients takes or gives the gradient of a value."""
    return f"grad.{name}"


def gradient_graph(graph: Graph, outputs: Sequence[str], wrt: Sequence[str], *, keep_outputs: bool = True) -> Graph:
    """Build a graph that computes gradients.

    It has the inputs of `graph`, and after them one input `grad.<output>` for each of `outputs`, of its type and
    shape: the gradient that comes from behind (1 for a loss). It gives, for each of `wrt`, an output `grad.<name>` of
    the value's type and shape: the sum over all of `outputs` of their gradients times the value's slope, and 0 where
    none depends on it. Free dimensions stay free. Weights are shared with `graph`.

    Args:
        graph: the model; without If, Loop and Scan on the way.
        outputs: names of values that are differentiated, outputs of the model or values in between.
        wrt: names of weights, inputs or values in between, of floats.
        keep_outputs: whether the outputs of `graph` come before the gradients.

    Raises:
        ValueError: a name that the graph doesn't have, that stands twice or on both sides, or of no floats.
        UnsupportedError: a node on the way has no rule; the message names operator and node.
    """
    pass_ = _ReversePass(graph, outputs, wrt)
    if pass_.refused:
        node, reason = pass_.refused[0]
        more = f" (and {len(pass_.refused) - 1} more nodes)" if len(pass_.refused) > 1 else ""
        raise UnsupportedError(
            f"no gradient through {_operator(node)} (node {_label(node)}): {reason}{more}; "
            f"leave what stands before it out of wrt, or measure by forward runs instead"
        )
    return pass_.result(keep_outputs=keep_outputs)


def missing_rules(graph: Graph, outputs: Sequence[str], wrt: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return what `gradient_graph` of the same arguments lacks a rule for: nodes by operator, none if it can be built.

    Raises:
        ValueError: as `gradient_graph`.
    """
    found: dict[str, list[str]] = {}
    for node, _ in _ReversePass(graph, outputs, wrt).refused:
        found.setdefault(_operator(node), []).append(_label(node))
    return {operator: tuple(nodes) for operator, nodes in found.items()}


def refused_nodes(graph: Graph, outputs: Sequence[str], wrt: Sequence[str]) -> tuple[onnx.NodeProto, ...]:
    """Return the nodes for which `gradient_graph` of the same arguments lacks a rule, the last one first.

    Raises:
        ValueError: as `gradient_graph`.
    """
    return tuple(node for node, _ in _ReversePass(graph, outputs, wrt).refused)


class _ReversePass:
    """One pass back through a graph.

    Attributes:
        refused: nodes on the way without a rule, with the reason.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str], wrt: Sequence[str]) -> None:
        self._source, self._outputs, self._wrt = graph, outputs, wrt
        self._model = typed_model(graph)
        self._graph = self._model.graph
        self._emit = Emitter(self._graph)
        self._check_names()
        self.refused: list[tuple[onnx.NodeProto, str]] = []
        self._parts: dict[str, list[str]] = {name: [gradient_name(name)] for name in outputs}
        """Gradients of each value, one for each node that reads it."""
        self._run()

    def result(self, *, keep_outputs: bool) -> Graph:
        """Return the graph of gradients."""
        emit, graph = self._emit, self._graph
        seeds = [onnx.ValueInfoProto(name=gradient_name(name), type=emit.type_of(name)) for name in self._outputs]
        given = [onnx.ValueInfoProto(name=gradient_name(name), type=emit.type_of(name)) for name in self._wrt]
        for name in self._wrt:
            total = self._total(name) or emit.zeros(name, emit.code(name))
            emit.nodes.append(onnx.helper.make_node("Identity", [total], [gradient_name(name)]))
        edited = copy_of(
            graph,
            node=[*graph.node, *emit.nodes],
            initializer=[*graph.initializer, *emit.initializers],
            input=[*graph.input, *seeds],
            output=[*(graph.output if keep_outputs else ()), *given],
            # Stated shapes are for fusions of the forward graph, which gradients that read its values forbid anyway.
            value_info=(),
        )
        return with_uses(with_graph(replace(self._source, model=self._model), drop_unused(edited)))

    def _check_names(self) -> None:
        names = [*self._outputs, *self._wrt]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not self._outputs or not self._wrt:
            raise ValueError(f"outputs and wrt must be names, each once; twice: {', '.join(twice) or 'none'}")
        for name in names:
            if self._emit.code(name) not in FLOATS:
                raise ValueError(f"{name!r} is no value of floats of this graph")

    def _run(self) -> None:
        active, read = self._active(), set(self._outputs)
        for node in reversed(self._graph.node):
            wanted = frozenset(index for index, name in enumerate(node.input) if name in active)
            captured = any(active & used_names(inner) for inner in subgraphs(node))
            if not read.isdisjoint(node.output):
                read.update(node.input, *(used_names(inner) for inner in subgraphs(node)))
                if wanted and node.op_type == "QuantizeLinear":
                    # The path of floats ends here, but outputs depend on what stands before: 0 would be wrong.
                    self.refused.append((node, "the slope of rounding is 0 or infinite"))
            gradients = [self._total(name) if name in active else None for name in node.output]
            if not any(gradients) or not (wanted or captured):
                continue
            for index, gradient in self._through(node, gradients, wanted):
                self._parts.setdefault(node.input[index], []).append(gradient)

    def _through(
        self, node: onnx.NodeProto, gradients: Sequence[str | None], wanted: frozenset[int]
    ) -> list[tuple[int, str]]:
        """Return the gradients of a node's inputs by their index."""
        found = find(node)
        if found is None:
            subgraph = any(subgraphs(node))
            reason = "gradients don't enter nested graphs" if subgraph else "the operator has no rule"
        else:
            try:
                results = found(Call(node, self._emit, gradients, wanted, opset_of(self._model)))
                return [(index, each) for index, each in enumerate(results) if each is not None and index in wanted]
            except RefusedError as refusal:
                reason = f"its rule doesn't know {refusal}"
        self.refused.append((node, reason))
        # Stand-ins, so that the nodes before this one are looked at as well.
        stand_in = next(each for each in gradients if each)
        return [(index, stand_in) for index in wanted]

    def _total(self, name: str) -> str | None:
        """Return the sum of a value's gradients, None where it has none."""
        parts = self._parts.get(name, [])
        if len(parts) > 1:
            self._parts[name] = parts = [self._emit("Sum", *parts)]
        return parts[0] if parts else None

    def _active(self) -> set[str]:
        """Return the values of floats that depend on `wrt`, those included."""
        active = set(self._wrt)
        for node in self._graph.node:
            reads = set(node.input).union(*(used_names(inner) for inner in subgraphs(node)))
            if active & reads:
                active |= {name for name in node.output if name and self._emit.code(name) in {0, *FLOATS}}
        return active


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type


def _label(node: onnx.NodeProto) -> str:
    return node.name or f"the one that makes {node.output[0]!r}"
