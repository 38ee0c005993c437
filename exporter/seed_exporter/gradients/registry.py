"""Rules by operator, and the call of an operator that a rule is asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import onnx

from seed_exporter.gradients.emitter import Emitter
from seed_exporter.graph.index import Dim
from seed_exporter.graph.messages import attribute_of, input_of


class RefusedError(Exception):
    """A rule knows its operator, but not with these attributes or shapes; the text says which."""


@dataclass(frozen=True)
class Call:
    """A node of the forward graph, on the way back through the graph.

    Attributes:
        node: the node.
        emit: writes nodes behind those of the forward graph.
        gradients: gradients of the outputs; None where nothing depends on an output.
        wanted: positions of the inputs whose gradients are needed.
        opset: version of ONNX's own operators in the graph.
    """

    node: onnx.NodeProto
    emit: Emitter
    gradients: Sequence[str | None]
    wanted: Set[int]
    opset: int

    @property
    def gradient(self) -> str:
        """The gradient of the first output.

        Raises:
            RefusedError: another output has a gradient, which the rule would lose.
        """
        first, *others = self.gradients
        if first is None or any(others):
            self.refuse("a gradient of an output other than the first")
        return first

    @property
    def x(self) -> str:
        """The first input."""
        return self.node.input[0]

    @property
    def y(self) -> str:
        """The first output."""
        return self.node.output[0]

    @property
    def code(self) -> int:
        """The element type of the first output."""
        return self.emit.code(self.y) or self.emit.code(self.x)

    def input(self, index: int) -> str:
        """Return an input; "" where it is left out."""
        return input_of(self.node, index)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, strings as str."""
        return attribute_of(self.node, name, default)

    def scalar(self, value: float) -> str:
        """Return a constant of the first output's element type."""
        return self.emit.scalar(value, self.code)

    def shape(self, name: str) -> tuple[Dim, ...]:
        """Return what is known of a value's shape.

        Raises:
            RefusedError: not even its rank is known.
        """
        shape = self.emit.shape(name)
        if shape is None:
            self.refuse(f"an unknown rank of {name!r}")
        return shape

    def rank(self, name: str) -> int:
        """Return a value's rank; RefusedError where it isn't known."""
        return len(self.shape(name))

    def reduced(self, gradient: str, index: int) -> str | None:
        """Sum a gradient of the first output's shape to the shape of an input; None if that input wants none."""
        if index not in self.wanted:
            return None
        return self.emit.reduce_to(gradient, self.emit.shape(self.y), self.node.input[index])

    def optional_output(self, index: int) -> str:
        """Return an output of the node, which gets it if it had left it out."""
        while len(self.node.output) <= index:
            self.node.output.append("")
        if not self.node.output[index]:
            self.node.output[index] = self.emit.fresh_name()
        return self.node.output[index]

    def refuse(self, what: str) -> NoReturn:
        """Say what the rule doesn't know."""
        raise RefusedError(what)


Rule = Callable[[Call], Sequence[str | None]]
"""Return the gradients of a node's inputs in their order, as many as the rule knows; None for those that have none."""

RULES: Final[dict[tuple[str, str], Rule]] = {}
"""Rules by domain and operator."""


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[domain, operator] = function
        return function

    return register


def find(node: onnx.NodeProto) -> Rule | None:
    """Return the rule of a node's operator, None where there is none."""
    return RULES.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
