"""Weights as linear maps: which axes of a weight are outputs, which are inputs, and which come once for each group.

Error feedback and the covariances of inputs need this view; coding has its own (`matrix.coded_view`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from seed_exporter.graph.model import Use, Weight
from seed_exporter.graph.tflite_file import CONVOLUTION, DEPTHWISE

_Number = TypeVar("_Number", bound=np.generic)

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Operators whose inputs 1 and 2 are multiplied by inputs and by states."""


@dataclass(frozen=True)
class LinearView:
    """A weight as one matrix for each group, each from inputs to outputs.

    Attributes:
        stored: axes in memory, whose product is the weight's number of elements.
        groups: positions in `stored` of the axes that count groups.
        outputs: positions of the axes that count a group's outputs.
        inputs: positions of the axes that count a group's inputs.
    """

    stored: tuple[int, ...]
    groups: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of groups, of outputs of a group, and of inputs of a group."""
        return self._size(self.groups), self._size(self.outputs), self._size(self.inputs)

    def maps_of(self, values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
        """Return `(groups, outputs, inputs)` of values in the weight's order of memory, any shape."""
        order = (*self.groups, *self.outputs, *self.inputs)
        return values.reshape(self.stored).transpose(order).reshape(self.shape)

    def stored_of(self, maps: np.ndarray) -> np.ndarray:
        """Return values in the weight's order of memory, flat, of `(groups, outputs, inputs)`."""
        order = (*self.groups, *self.outputs, *self.inputs)
        axes = tuple(self.stored[axis] for axis in order)
        return maps.reshape(axes).transpose(np.argsort(order)).reshape(-1)

    def _size(self, axes: Sequence[int]) -> int:
        return math.prod(self.stored[axis] for axis in axes)


def linear_view(weight: Weight) -> LinearView | None:
    """Return the view of a weight that all of its linear uses share; None where none is linear, or they differ.

    A weight that is also a table (a tied embedding) has the view of its linear use.
    """
    views = {view for use in weight.uses if (view := _view_of_use(use, weight.shape)) is not None}
    return views.pop() if len(views) == 1 else None


def table_axis_is_first(weight: Weight) -> bool:
    """Return whether a node selects rows of the weight by index: an embedding, `(entries, features)`."""
    return len(weight.shape) == 2 and any(
        use.op == "Gather" and use.index == 0 and use.attributes.get("axis", 0) in (0, -2) for use in weight.uses
    )


def is_linear(use: Use) -> bool:
    """Return whether this input of a node is multiplied by another one, as a matrix."""
    return (use.op, use.index) in _LINEAR


_LINEAR = frozenset(
    {("Conv", 1), ("ConvTranspose", 1), ("Gemm", 0), ("Gemm", 1), ("MatMul", 0), ("MatMul", 1)}
    | {("FusedMatMul", 0), ("FusedMatMul", 1)}
    | {(op, index) for op in RECURRENT for index in (1, 2)}
    | {(CONVOLUTION, 1), (DEPTHWISE, 1)}
)


def _view_of_use(use: Use, shape: tuple[int, ...]) -> LinearView | None:
    if not is_linear(use) or len(shape) < 2:
        return None
    if use.op == "Conv":
        groups = int(use.attributes.get("group", 1))
        return LinearView((groups, shape[0] // groups, math.prod(shape[1:])), (0,), (1,), (2,))
    if use.op == "ConvTranspose":
        groups = int(use.attributes.get("group", 1))
        return LinearView((groups, shape[0] // groups, math.prod(shape[1:])), (0,), (2,), (1,))
    if use.op == CONVOLUTION:
        groups = int(use.attributes.get("group", 1))
        return LinearView((groups, shape[0] // groups, math.prod(shape[1:])), (0,), (1,), (2,))
    if use.op == DEPTHWISE:
        return LinearView((math.prod(shape[:-1]), shape[-1]), (1,), (), (0,))
    batch = math.prod(shape[:-2])
    stored = (batch, shape[-2], shape[-1])
    if use.op in RECURRENT:
        return LinearView(stored, (0,), (1,), (2,))
    transposed = bool(use.attributes.get("transB" if use.index else "transA", 0))
    # The second operand is [inputs, outputs], the first one [outputs, inputs].
    inputs_first = (use.index == 1) != transposed
    return LinearView(stored, (0,), (2,), (1,)) if inputs_first else LinearView(stored, (0,), (1,), (2,))
