"""Run ONNX graphs in torch, with gradients: each node by the function of its operator (ops/).

All floats are computed in one type, whatever the graph says: what is trained here is coded in steps far coarser than
the difference, and float16 is slow or not there on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from seed_exporter.graph.index import all_graphs, definitions, subgraphs, used_names
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import opset_of, plain_domain
from seed_exporter.heal import ops
from seed_exporter.heal.registry import OPERATORS, Body, Call, Operator, RefusedError
from seed_runtime.errors import UnsupportedError

__all__ = ["Interpreter", "check", "ops"]

_KNOWN_MOST: Final = 64
"""Most elements of a constant that are kept as numbers: shapes, axes, scales."""
_PRODUCTS: Final = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
"""Operators that autocast computes in bf16."""
_SHAPES_MOST: Final = 16
"""Most sets of input shapes for which what depends on shapes alone is kept."""


@dataclass(frozen=True)
class _Step:
    """One node, made ready to run.

    Attributes:
        run: the function of its operator.
        node: the node.
        attributes: its attributes.
        bodies: the graphs among its attributes.
        reads: what it reads, graphs in its attributes included.
        spent: names that no later node and no output reads.
        known: elements of small inputs that are constant, by the input's index: to ask a GPU for them would make it
            wait.
        in_floats: whether it is computed in the graph's floats also where others are computed in bf16.
    """

    run: Operator
    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    bodies: Mapping[str, _Nested]
    reads: frozenset[str]
    spent: tuple[str, ...]
    known: Mapping[int, list[Any]] = field(default_factory=dict)
    in_floats: bool = False

    @property
    def names(self) -> set[str]:
        """What it reads and makes."""
        return {*self.reads, *self.node.output}


@dataclass(frozen=True)
class _Nested:
    """A graph in an attribute.

    Attributes:
        inputs: names of its inputs.
        outputs: names of its results.
        captured: names of the values around it that it reads.
        constants: its own constants.
        steps: its nodes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: frozenset[str]
    constants: Mapping[str, Tensor]
    steps: Sequence[_Step]


@dataclass(frozen=True)
class _Fixed:
    """What is left to do where some values are known.

    Attributes:
        constants: the known values that it reads, or that are outputs.
        steps: the nodes that are left.
    """

    constants: Mapping[str, Tensor]
    steps: Sequence[_Step]


_Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Inputs by name, with their shapes."""


class Interpreter:
    """A graph in torch.

    What depends neither on inputs nor on weights is computed once, and what depends on shapes of inputs alone once for
    these shapes.

    Args:
        graph: the graph.
        float_type: the type that all floats are computed in.
        device: where everything is computed.
        kept: names of values between nodes that `run` returns beside the outputs.
        replaced: functions of single nodes, by the name of their first output, in place of their operators'.

    Raises:
        UnsupportedError: an operator has no function here; the message names it.
    """

    def __init__(
        self,
        graph: Graph,
        float_type: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        kept: Sequence[str] = (),
        replaced: Mapping[str, Operator] | None = None,
    ) -> None:
        check(graph)
        self._replaced = replaced or {}
        self.float_type, self.device = float_type, torch.device(device)
        self._opset = opset_of(graph.model)
        proto = graph.model.graph
        self.outputs = tuple(value.name for value in proto.output)
        self._outputs = [*self.outputs, *kept]
        self._weights = {name: unpacked(weight) for name, weight in graph.weights.items()}
        self._constants = {
            tensor.name: self.tensor(numpy_helper.to_array(tensor))
            for tensor in proto.initializer
            if tensor.name not in graph.weights
        }
        varying = {value.name for value in proto.input if value.name not in self._constants} | graph.weights.keys()
        self._steps = self._fold(self._prepare(proto, self._outputs), varying)
        self._by_shapes: dict[_Shapes, _Fixed] = {}

    def weights(self) -> dict[str, Tensor]:
        """Return the graph's own weights; a float's data is never shared with the graph."""
        return {name: self.tensor(array) for name, array in self._weights.items()}

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return a copy of an array on the device, floats in the type that is computed in."""
        if array.dtype.kind == "V" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            array = array.astype(np.float32)
        found = torch.from_numpy(np.array(array))
        return found.to(self.device, self.float_type if found.is_floating_point() else None)

    def run(
        self, feeds: Mapping[str, np.ndarray | Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute the outputs, and the values that were to be kept.

        Args:
            feeds: inputs by name.
            weights: weights by name, and small initializers; the graph's own where they are left out.

        Raises:
            UnsupportedError: an operator isn't known with these attributes or inputs.
        """
        given = weights or {}
        varying = {name: given[name] if name in given else self.tensor(self._weights[name]) for name in self._weights}
        varying |= {name: given[name] for name in given.keys() & self._constants.keys()}  # small trained biases
        fed = {name: each if isinstance(each, Tensor) else self.tensor(each) for name, each in feeds.items()}
        shapes = tuple(sorted((name, tuple(each.shape)) for name, each in fed.items()))
        fixed = self._by_shapes.get(shapes)
        known = fixed.constants if fixed else self._constants
        values: dict[str, Tensor | None] = {"": None, **known, **varying, **fed}
        if fixed is None and len(self._by_shapes) < _SHAPES_MOST:
            self._by_shapes[shapes] = self._run_first(values, varying.keys() | fed.keys())
        else:
            self._run_all(fixed.steps if fixed else self._steps, values)
        return {name: value for name in self._outputs if (value := values[name]) is not None}

    def _run_first(self, values: dict[str, Tensor | None], varying: set[str]) -> _Fixed:
        """Compute all values, and return what is left to do for other inputs of these shapes."""
        constants, left = dict(self._constants), []
        for step in self._steps:
            self._run(step, values)
            if step.node.op_type in ("Shape", "Size") or varying.isdisjoint(step.reads):
                constants |= {name: value for name in step.node.output if name and (value := values[name]) is not None}
            else:
                varying |= set(step.node.output) - {""}
                left.append(step)
            for name in step.spent:
                del values[name]
        return _fixed(constants, left, set(self._outputs))

    def _run_all(self, steps: Sequence[_Step], values: dict[str, Tensor | None]) -> None:
        for step in steps:
            self._run(step, values)
            for name in step.spent:
                del values[name]

    def _run_nested(
        self, nested: _Nested, around: Mapping[str, Tensor | None], inputs: Sequence[Tensor | None]
    ) -> list[Tensor]:
        values: dict[str, Tensor | None] = {"": None, **nested.constants}
        values |= {name: around[name] for name in nested.captured} | dict(zip(nested.inputs, inputs, strict=False))
        self._run_all(nested.steps, values)
        results = [values[name] for name in nested.outputs]
        return [value for value in results if value is not None]

    def _run(self, step: _Step, values: dict[str, Tensor | None]) -> None:
        node = step.node
        bodies = {
            name: Body(partial(self._run_nested, nested, values), len(nested.outputs))
            for name, nested in step.bodies.items()
        }
        inputs = [values[name] for name in node.input]
        in_floats = step.in_floats and torch.is_autocast_enabled(self.device.type)
        if in_floats:
            inputs = [_widened(value) for value in inputs]
        call = Call(inputs, {**step.attributes, **bodies}, self._opset, self.float_type, step.known)
        try:
            with torch.autocast(self.device.type, enabled=False) if in_floats else nullcontext():
                found = step.run(call)
        except torch.OutOfMemoryError:
            raise  # a smaller batch may do
        except (RefusedError, RuntimeError, IndexError, TypeError) as error:
            raise UnsupportedError(
                f"node {node.name or node.output[0]!r}: torch can't compute {node.op_type} as the model asks for it: "
                f"{error}; export without training: a lower --effort, no --heal"
            ) from error
        outputs = [found] if isinstance(found, torch.Tensor) else list(found)
        values |= {name: value for name, value in zip(node.output, outputs, strict=False) if name}
        if any(node.output[len(outputs) :]):
            raise UnsupportedError(
                f"node {node.name or node.output[0]!r}: only the first output of {node.op_type} can be computed in "
                f"torch; export without training: a lower --effort, no --heal"
            )

    def _prepare(self, proto: onnx.GraphProto, outputs: Sequence[str]) -> list[_Step]:
        reads = [frozenset(node.input).union(*map(_captured, subgraphs(node))) for node in proto.node]
        in_floats = last_products(proto)
        last: dict[str, int] = {}
        for index, node in enumerate(proto.node):
            last |= dict.fromkeys(reads[index].union(node.output), index)
        steps = []
        for index, node in enumerate(proto.node):
            names = sorted(reads[index].union(node.output) - {""})
            spent = tuple(name for name in names if last[name] == index and name not in outputs)
            function = self._replaced.get(node.output[0]) or OPERATORS[plain_domain(node.domain), node.op_type]
            attributes = {each.name: self._attribute(each) for each in node.attribute if not each.HasField("g")}
            bodies = {each.name: self._nested(each.g) for each in node.attribute if each.HasField("g")}
            exact = node.output[0] in in_floats
            steps.append(_Step(function, node, attributes, bodies, reads[index], spent, in_floats=exact))
        return steps

    def _nested(self, proto: onnx.GraphProto) -> _Nested:
        outputs = tuple(value.name for value in proto.output)
        constants = {tensor.name: self.tensor(numpy_helper.to_array(tensor)) for tensor in proto.initializer}
        inputs = tuple(value.name for value in proto.input)
        return _Nested(inputs, outputs, _captured(proto), constants, self._prepare(proto, outputs))

    def _fold(self, steps: Sequence[_Step], varying: set[str]) -> list[_Step]:
        """Compute what is constant, and return the steps that are left."""
        values: dict[str, Tensor | None] = {"": None, **self._constants}
        left = []
        for step in steps:
            if varying.isdisjoint(step.reads):
                with torch.no_grad():
                    self._run(step, values)
            else:
                varying |= set(step.node.output) - {""}
                left.append(step)
        found = {name: value.to(self.device) for name, value in values.items() if value is not None}
        fixed = _fixed(found, left, set(self._outputs))
        self._constants = dict(fixed.constants)
        return list(fixed.steps)

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            return self.tensor(numpy_helper.to_array(value))
        return value.decode() if isinstance(value, bytes) else value


def last_products(proto: onnx.GraphProto) -> frozenset[str]:
    """Return the products that outputs are made of, one value after the other, by the names of what they give.

    bf16 has 8 significant bits: scores about -19 would be rounded to multiples of .125, which is as much as tells two
    similar classes apart.
    """
    made = {name: node for node in proto.node for name in node.output}
    found, names = set(), [value.name for value in proto.output]
    while names:
        node = made.get(names.pop())
        if node is None:
            continue
        if node.op_type in _PRODUCTS:
            found.add(node.output[0])
        elif len(computed := [name for name in node.input if name in made]) == 1:
            names += computed
    return frozenset(found)


def _widened(value: Tensor | None) -> Tensor | None:
    return value.float() if value is not None and value.dtype in (torch.bfloat16, torch.float16) else value


def _fixed(known: Mapping[str, Tensor], steps: Sequence[_Step], outputs: set[str]) -> _Fixed:
    """Return the steps with what they need of the values that are known."""
    needed = {name for step in steps for name in step.reads} | outputs
    constants = {name: value for name, value in known.items() if name in needed}
    # Constants that nodes before have used up are not among the values of a run.
    made = {name for step in steps for name in step.names}
    found = []
    for step in steps:
        numbers = {
            index: constants[name].reshape(-1).tolist()
            for index, name in enumerate(step.node.input)
            if name in constants and constants[name].numel() <= _KNOWN_MOST
        }
        found.append(replace(step, spent=tuple(name for name in step.spent if name in made), known=numbers))
    return _Fixed(constants, found)


def check(graph: Graph) -> None:
    """Raise UnsupportedError where an operator has no function here; the message names it."""
    graphs = all_graphs(graph.model.graph)
    found = {(plain_domain(node.domain), node.op_type) for inner in graphs for node in inner.node}
    missing = sorted(f"{domain}.{name}".lstrip(".") for domain, name in found - OPERATORS.keys())
    if missing:
        raise UnsupportedError(
            f"the model has operators that can't be trained here: {', '.join(missing)}; "
            f"export without training: a lower --effort, no --heal"
        )


def _captured(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the names of the values around a nested graph that it reads."""
    own = {name for inner in all_graphs(graph) for name in definitions(inner)}
    return frozenset(used_names(graph) - own)


def unpacked(weight: Weight) -> np.ndarray:
    """Return a weight's elements in its shape, of a type that NumPy has itself."""
    if weight.data.shape == weight.shape and weight.dtype.storage.kind != "u":
        return weight.data
    packed = onnx.TensorProto(data_type=weight.dtype.code, dims=weight.shape, raw_data=weight.data.tobytes())
    array = numpy_helper.to_array(packed)
    if weight.dtype.bits < 8:
        return array.astype(np.int8)
    return array.astype(np.float32) if "float" in weight.dtype.name else array
