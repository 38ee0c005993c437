"""Write nodes behind those of a graph: no node twice, and constants where sizes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.gradients.sizes import name_sizes
from seed_exporter.graph.edit import FreshNames
from seed_exporter.graph.index import Dim, GraphIndex
from seed_runtime.backends.dimension_names import is_unknown

Size = int | str
"""A size that is known, or the name of an int64[1] value that has it at run time."""

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""Element types that have gradients."""


class Emitter:
    """Writes nodes behind those of a graph.

    Nodes stand in the order in which they were written, so that each stands behind those that it reads. The same
    operator on the same values is written once.

    Args:
        graph: the graph, with the types of its values.
        names: makes the names of new values; by default it knows those of the graph.
    """

    def __init__(self, graph: onnx.GraphProto, names: FreshNames | None = None) -> None:
        index = GraphIndex(graph)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names = names or FreshNames(graph)
        self._written: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._types = index.types
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._shapes = {name: tuple(_known(dim) for dim in shape) for name, shape in index.shapes.items()}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
        self._shapes = name_sizes(graph, self._shapes, self._integers)

    def __call__(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Write a node with one output, and return its name; inputs left out in the middle are ""."""
        return self.several(op, inputs, 1, domain=domain, **attributes)[0]

    def several(
        self, op: str, inputs: Sequence[str], count: int, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Write a node with `count` outputs, and return their names."""
        key = (op, domain, count, tuple(inputs), repr(sorted(attributes.items())))
        if key not in self._written:
            outputs = tuple(self.fresh_name() for _ in range(count))
            self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
            self._written[key] = outputs
        return self._written[key]

    def scan(
        self, states: Sequence[str], elements: Sequence[str], body: ScanBody, *, backwards: bool
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Write a loop over the first axis of values, and return the names of its last states and of its results.

        Args:
            states: what the loop starts from.
            elements: values of which each iteration takes one element.
            body: writes one iteration.
            backwards: whether the loop goes from the last element to the first; results are in the elements' order.
        """
        inner = Emitter(onnx.GraphProto(), self._names)
        given = [inner.fresh_name() for _ in (*states, *elements)]
        after, results = body(inner, given[: len(states)], given[len(states) :])
        # A body's outputs differ from its inputs and from each other.
        made = [inner.fresh_name() for _ in (*after, *results)]
        ends = [helper.make_node("Identity", [a], [b]) for a, b in zip([*after, *results], made, strict=True)]
        inputs, outputs = ([onnx.ValueInfoProto(name=name) for name in names] for names in (given, made))
        graph = helper.make_graph([*inner.nodes, *ends], "body", inputs, outputs, inner.initializers)
        found = self.several(
            "Scan",
            [*states, *elements],
            len(made),
            body=graph,
            num_scan_inputs=len(elements),
            scan_input_directions=[int(backwards)] * len(elements),
            scan_output_directions=[int(backwards)] * len(results),
        )
        return found[: len(states)], found[len(states) :]

    def constant(self, values: np.ndarray) -> str:
        """Return the name of a constant."""
        return self._constant(numpy_helper.from_array(np.ascontiguousarray(values)))

    def integers(self, values: Iterable[int]) -> str:
        """Return the name of a constant int64 vector."""
        return self.constant(np.array(list(values), np.int64))

    def scalar(self, value: float, code: int) -> str:
        """Return the name of a constant of rank 0 and of this element type."""
        return self._constant(helper.make_tensor("", code, [], [value]))

    def static(self, name: str) -> np.ndarray | None:
        """Return the values of a constant whose data is in the graph; None for others."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError):
            return None  # a weight, whose data isn't in the message
        return values if values.shape == tuple(tensor.dims) else None

    def _integers(self, name: str) -> list[int] | None:
        values = self.static(name)
        return None if values is None else [int(each) for each in values.reshape(-1)]

    def code(self, name: str) -> int:
        """Return the element type of a value of the graph; 0 where it isn't known."""
        if name in self._tensors:
            return self._tensors[name].data_type
        return self._types[name].tensor_type.elem_type if name in self._types else 0

    def type_of(self, name: str) -> onnx.TypeProto:
        """Return the type of a value of the graph, with its free dimensions as they are named there."""
        if name in self._types:
            return self._types[name]
        return helper.make_tensor_type_proto(self.code(name), self._tensors[name].dims)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Return what is known of the shape of a value of the graph; None for an unknown rank."""
        return self._shapes.get(name)

    def shape_vector(self, name: str) -> str:
        """Return the name of an int64 vector with the shape of a value: a constant where all sizes are known."""
        shape = self.shape(name)
        if shape is not None and all(isinstance(dim, int) for dim in shape):
            return self.integers(int(dim or 0) for dim in shape)
        return self("Shape", name)

    def size(self, name: str, axis: int) -> Size:
        """Return the size of a value of the graph along an axis."""
        shape = self.shape(name)
        dim = shape[axis] if shape is not None else None
        return dim if isinstance(dim, int) else self("Gather", self("Shape", name), self.integers([axis]))

    def vector(self, sizes: Sequence[Size]) -> str:
        """Return the name of an int64 vector of these sizes."""
        if all(isinstance(each, int) for each in sizes):
            return self.integers(int(each) for each in sizes)
        parts = [each if isinstance(each, str) else self.integers([each]) for each in sizes]
        return self("Concat", *parts, axis=0)

    def count(self, name: str, code: int) -> str:
        """Return the number of elements of a value as a scalar of this element type."""
        shape = self.shape(name)
        if shape is not None and all(isinstance(dim, int) for dim in shape):
            return self.scalar(float(np.prod([int(dim or 0) for dim in shape])), code)
        return self("Cast", self("Size", name), to=code)

    def zeros(self, name: str, code: int) -> str:
        """Return zeros of a value's shape and of this element type."""
        value = helper.make_tensor("", code, [1], [0])
        return self("ConstantOfShape", self.shape_vector(name), value=value)

    def reduce_to(self, gradient: str, shape: Sequence[Dim] | None, name: str) -> str:
        """Sum a gradient over the axes along which a value was broadcast.

        Args:
            gradient: the gradient of what the value was broadcast to.
            shape: what is known of the gradient's shape.
            name: a value of the graph.
        """
        axes = broadcast_axes(self.shape(name), shape)
        if axes is None:
            return self._reduce_at_run_time(gradient, name)
        if not axes:
            return gradient
        leading = list(range(len(shape or ()) - len(self.shape(name) or ())))
        if axes == leading:
            return self("ReduceSum", gradient, self.integers(axes), keepdims=0)
        reduced = self("ReduceSum", gradient, self.integers(axes), keepdims=1)
        return self("Squeeze", reduced, self.integers(leading)) if leading else reduced

    def _reduce_at_run_time(self, gradient: str, name: str) -> str:
        own, full = self("Shape", name), self("Shape", gradient)
        shape = self.shape(name)
        rank = self("Shape", own) if shape is None else self.integers([len(shape)])
        one = helper.make_tensor("", TensorProto.INT64, [1], [1])
        ones = self("ConstantOfShape", self("Sub", self("Shape", full), rank), value=one)
        own = self("Concat", ones, own, axis=0)
        axes = self("Squeeze", self("NonZero", self("Not", self("Equal", own, full))), self.integers([0]))
        reduced = self("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
        return self("Reshape", reduced, self.shape_vector(name), allowzero=1)

    def _constant(self, tensor: onnx.TensorProto) -> str:
        key = ("", tensor.SerializeToString(deterministic=True))
        if key not in self._written:
            tensor.name = self.fresh_name()
            self.initializers.append(tensor)
            self._written[key] = (tensor.name,)
        return self._written[key][0]

    def fresh_name(self) -> str:
        """Return a name that no value has yet."""
        return self._names.take(f"gradient_{len(self._written)}")


ScanBody = Callable[[Emitter, Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]]]
"""Write one iteration of a loop with the emitter given, from states and elements: the states after it, and its results.

Values of the graph around the loop that were written before it can be read.
"""


def broadcast_axes(small: Sequence[Dim] | None, large: Sequence[Dim] | None) -> list[int] | None:
    """Return the axes of `large` along which `small` is broadcast to it; None where only the run time can tell."""
    if small is None or large is None:
        return None
    lead = len(large) - len(small)
    axes = list(range(lead))
    for axis, (own, full) in enumerate(zip(small, large[lead:], strict=True), start=lead):
        if own == 1:
            axes += [axis] if full != 1 else []
        elif own is None or (isinstance(own, str) and own != full):
            return None
    return axes


def _known(dim: Dim) -> Dim:
    return None if isinstance(dim, str) and is_unknown(dim) else dim
