"""Name the sizes that shape inference leaves open, so that equal ones are known to be equal.

Where two values are known to have one shape, no gradient has to be reduced at run time. A name stands for one size;
two names may stand for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import onnx
from onnx import helper

from seed_exporter.graph.index import Dim

Shape = tuple[Dim, ...]

_BROADCAST: Final = frozenset(
    {
        *("Abs", "Add", "BatchNormalization", "Cast", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Exp"),
        *("Gelu", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu"),
        *("Log", "LogSoftmax", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu"),
        *("Sigmoid", "Sin", "Softmax", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Trilu", "Where"),
    }
)
"""Operators whose output has the shape to which their inputs are broadcast; vectors by channel are of known size."""
_FIRST_ONLY: Final = frozenset(
    {"BatchNormalization", "Clip", "Dropout", "InstanceNormalization", "LayerNormalization", "Trilu"}
)
"""Those whose first input alone has the output's shape."""
_BATCH: Final = frozenset({"Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"})
"""Operators on images, whose batch stays."""


def name_sizes(
    graph: onnx.GraphProto, shapes: Mapping[str, Shape], static: Callable[[str], Sequence[int] | None]
) -> dict[str, Shape]:
    """Return the shapes with a name for each unknown size.

    Args:
        graph: the graph; its nodes stand in order.
        shapes: what is known of the shapes; None is an unknown size.
        static: returns the integers of a constant, None for other values.
    """
    made = {name for node in graph.node for name in node.output}
    found = {name: _named(name, shape) for name, shape in shapes.items() if name not in made}
    for node in graph.node:
        inputs = [found.get(name) for name in node.input]
        for name in node.output:
            if name not in shapes:
                continue
            shape = shapes[name]
            known = _follow(node, inputs, len(shape), static) if name == node.output[0] else None
            if known is not None and len(known) == len(shape):
                shape = tuple(b if a is None else a for a, b in zip(shape, known, strict=True))
            found[name] = _named(name, shape)
    return found


def _named(name: str, shape: Shape) -> Shape:
    # With a null byte: no dimension of a model is called so.
    return tuple(f"{name}\0{axis}" if dim is None else dim for axis, dim in enumerate(shape))


def _follow(
    node: onnx.NodeProto, inputs: Sequence[Shape | None], rank: int, static: Callable[[str], Sequence[int] | None]
) -> Shape | None:
    """Return the sizes of a node's first output that are sizes of its inputs; None for others."""
    first = inputs[0] if inputs else None
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if first is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _BROADCAST:
        return _broadcast([first] if node.op_type in _FIRST_ONLY else inputs, rank)
    if node.op_type in _BATCH:
        keeps = node.op_type == "Conv" and _keeps_sizes(attributes, inputs[1])
        return (first[0], None, *(first[2:] if keeps else [None] * (len(first) - 2)))
    if node.op_type == "Transpose":
        order = attributes.get("perm", list(reversed(range(len(first)))))
        return tuple(first[axis] for axis in order)
    if node.op_type == "MatMul" and inputs[1] is not None and len(first) >= 2 and len(inputs[1]) == 2:
        return (*first[:-1], None)
    if node.op_type == "Reshape" and not attributes.get("allowzero"):
        sizes = static(node.input[1])
        return None if sizes is None else tuple(first[at] if size == 0 else None for at, size in enumerate(sizes))
    if node.op_type.startswith("Reduce") and attributes.get("keepdims", 1) and len(node.input) > 1:
        axes = static(node.input[1])
        if axes is None or not len(axes):
            return None
        gone = {int(axis) % len(first) for axis in axes}
        return tuple(None if axis in gone else dim for axis, dim in enumerate(first))
    return None


def _broadcast(inputs: Sequence[Shape | None], rank: int) -> Shape | None:
    if any(each is None for each in inputs):
        return None
    columns: list[Shape] = [(1,) * (rank - len(each)) + each for each in inputs if each is not None]
    found: list[Dim] = []
    for dims in zip(*columns, strict=True):
        sizes = set(dims) - {1}
        found.append(sizes.pop() if len(sizes) == 1 else None)
    return tuple(found)


def _keeps_sizes(attributes: Mapping[str, Any], kernel: Shape | None) -> bool:
    """Return whether a convolution's strides are 1 and its pads make up for its kernel."""
    if kernel is None or not all(isinstance(size, int) for size in kernel[2:]):
        return False
    sizes = [int(size or 0) for size in kernel[2:]]
    ones = [1] * len(sizes)
    strides, dilations = (list(attributes.get(name, ones)) for name in ("strides", "dilations"))
    if strides != ones:
        return False
    auto = attributes.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        return True
    pads = list(attributes.get("pads", [0] * 2 * len(sizes)))
    if auto == b"VALID":
        pads = [0] * 2 * len(sizes)
    totals = [begin + end for begin, end in zip(pads[: len(sizes)], pads[len(sizes) :], strict=True)]
    return totals == [dilation * (size - 1) for size, dilation in zip(sizes, dilations, strict=True)]
