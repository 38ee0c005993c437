"""Which biases belong to rows that can die: they are 0 where the row is, so that what is dead answers 0 and can be cut.

A dead row that keeps its bias is a constant, which a cut adds to the next bias, as floats: for a block of 64 wide, 130
bytes. A bias stays where the row's result is only added to others, as in a residual stream: nothing could be cut there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, Final

import numpy as np
import onnx
from torch import Tensor

from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import attribute_of, input_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.graph.versions import plain_domain
from seed_runtime.codecs.encode.grid import QuantizedMatrix

_FUNCTIONS: Final = frozenset(
    {"Abs", "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSwish", "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sign"}
    | {"Swish", "Tanh"}
)
"""Operators of one value that make 0 of 0."""
_PASSED: Final = _FUNCTIONS | {"Div", "MatMul", "MaxPool", "Mul", "Conv", "Reshape", "Split", "Squeeze", "Transpose"}
"""Operators behind which a row of zeros can be cut."""


class Gates:
    """The rows of one graph's matrices that can die, and what dies with them.

    Args:
        graph: the folded graph.
        names: the matrices that are trained.
        paired: those of them with a batch norm behind, whose biases are 0 where their rows are in any case.

    Attributes:
        biases: the matrix by its bias.
    """

    def __init__(self, graph: Graph, names: Set[str], paired: Set[str]) -> None:
        self.biases: dict[str, str] = {}
        self._axes: dict[str, tuple[int, Weight]] = {}
        self._before: dict[str, str] = {}
        index = GraphIndex(graph)
        made: dict[str, str] = {}
        for node in index.graph.node:
            if plain_domain(node.domain):
                continue
            if node.op_type in _FUNCTIONS and node.input[0] in made:
                made[node.output[0]] = made[node.input[0]]
            weight = graph.weights.get(input_of(node, 1))
            axis = None if weight is None or len(index.consumers[weight.name]) > 1 else _output_axis(node, weight)
            if weight is None or axis is None or weight.name not in names:
                continue
            result, bias = _biased(node, index)
            if bias:
                own = bias in graph.weights and graph.weights[bias].count == weight.shape[axis]
                if weight.name not in paired and not (
                    own and len(index.consumers[bias]) == 1 and _passes(result, index)
                ):
                    continue
                self.biases[bias] = weight.name
            self._axes[weight.name] = axis, weight
            if _is_depthwise(node, weight) and node.input[0] in made:
                self._before[weight.name] = made[node.input[0]]
            made[result] = weight.name

    def living(self, weights: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which outputs of each matrix live, 1 or 0.

        Args:
            weights: by name.
            rows: by name of a matrix, whether there is anything but zeros in a row of it as it is coded.
        """

        def own(name: str, axis: int, weight: Weight) -> Tensor:
            if axis == 0 and len(rows[name]) == weight.shape[0]:
                return rows[name]
            values = weights[name].detach()
            return (values.movedim(axis, 0).flatten(1) != 0).any(1).to(values.dtype)

        return {**rows, **self._joined(own)}

    def living_of(self, matrices: Mapping[str, QuantizedMatrix]) -> dict[str, np.ndarray]:
        """Return the same of matrices as they are coded, True or False."""

        def own(name: str, axis: int, weight: Weight) -> np.ndarray:
            others = tuple(each for each in range(len(weight.shape)) if each != axis)
            return np.asarray(matrices[name].integers.reshape(weight.shape).any(axis=others))

        return {name: matrix.integers.any(axis=1) for name, matrix in matrices.items()} | self._joined(own)

    def _joined(self, own: Callable[[str, int, Weight], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, (axis, weight) in self._axes.items():
            living = own(name, axis, weight)
            # A depthwise convolution of a dead channel makes a constant.
            found[name] = living * found[self._before[name]] if name in self._before else living
        return found


def _output_axis(node: onnx.NodeProto, weight: Weight) -> int | None:
    if node.op_type == "Conv":
        return 0
    if len(weight.shape) != 2 or node.op_type not in ("Gemm", "MatMul"):
        return None
    return 0 if attribute_of(node, "transB", 0) else 1


def _is_depthwise(node: onnx.NodeProto, weight: Weight) -> bool:
    return node.op_type == "Conv" and attribute_of(node, "group", 1) == weight.shape[0] > weight.shape[1] == 1


def _biased(node: onnx.NodeProto, index: GraphIndex) -> tuple[str, str]:
    """Return the result of a product with its bias, and the bias; "" without one."""
    product = node.output[0]
    if node.op_type != "MatMul":
        return product, input_of(node, 2)
    consumers = index.consumers.get(product, ())
    if len(consumers) == 1 and product not in index.returned and consumers[0].node.op_type == "Add":
        following, place = consumers[0]
        bias = following.input[1 - place]
        if bias not in index.producers:
            return following.output[0], bias
    return product, ""


def _passes(value: str, index: GraphIndex) -> bool:
    """Return whether zeros in place of a value's channels can be cut somewhere."""
    readers = index.consumers.get(value, ())
    return value not in index.returned and any(node.op_type in _PASSED for node, _ in readers)
