"""Operators of ONNX in torch by domain and name, and the call of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import torch
from torch import Tensor


class RefusedError(Exception):
    """A function knows its operator, but not with these attributes or inputs; the text says which."""


@dataclass(frozen=True)
class Body:
    """A graph in an attribute of a node, which reads values around the node.

    Attributes:
        run: computes its results, given its inputs.
        results: number of its results.
    """

    run: Callable[[Sequence[Tensor | None]], list[Tensor]]
    results: int


@dataclass(frozen=True)
class Call:
    """A node with the values of its inputs.

    Attributes:
        inputs: values of the inputs, None for those that are left out.
        attributes: the node's attributes: strings as `str`, tensors as tensors, graphs as `Body`.
        opset: version of ONNX's own operators in the graph.
        float_type: the type that all floats are computed in.
        known: elements of inputs that are constant and small, by the input's index.
    """

    inputs: Sequence[Tensor | None]
    attributes: Mapping[str, Any]
    opset: int
    float_type: torch.dtype
    known: Mapping[int, list[Any]] = field(default_factory=dict)

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.required(0)

    def required(self, index: int) -> Tensor:
        """Return an input that must be there."""
        value = self.input(index)
        if value is None:
            self.refuse(f"no input {index}")
        return value

    def input(self, index: int) -> Tensor | None:
        """Return an input; None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def given(self) -> list[Tensor]:
        """Return the inputs that aren't left out."""
        return [value for value in self.inputs if value is not None]

    def integers(self, index: int) -> list[int] | None:
        """Return an input of integers as numbers; None where it is left out."""
        found = self.numbers(index)
        return None if found is None else [int(each) for each in found]

    def numbers(self, index: int) -> list[Any] | None:
        """Return the elements of an input; None where it is left out."""
        if index in self.known:
            return self.known[index]
        value = self.input(index)
        return None if value is None else value.reshape(-1).tolist()

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def refuse(self, what: str) -> NoReturn:
        """Say what the function doesn't know."""
        raise RefusedError(what)


Operator = Callable[[Call], Tensor | Sequence[Tensor]]
"""Compute a node's output, or its outputs where it may have several: the first ones, as many as the function knows."""

OPERATORS: Final[dict[tuple[str, str], Operator]] = {}
"""Functions by domain and operator."""

MICROSOFT: Final = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


def operator(*names: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Register a function for operators."""

    def register(function: Operator) -> Operator:
        for name in names:
            OPERATORS[domain, name] = function
        return function

    return register


def unary(name: str, function: Callable[[Tensor], Tensor], domain: str = "") -> None:
    """Register a function of torch for an operator of one input and no attributes."""
    operator(name, domain=domain)(lambda call: function(call.x))


def binary(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Register a function of torch for an operator of two inputs and no attributes."""
    operator(name)(lambda call: function(call.required(0), call.required(1)))
