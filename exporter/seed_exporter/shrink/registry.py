"""Rules by operator, and the call of an operator that a rule is asked about.

A rule says how the channels of a node's inputs become those of its outputs. What it doesn't look at can't be cut: an
axis of an input that a rule hasn't asked for keeps all its channels, and so do all axes at an operator without a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import onnx

from seed_exporter.graph.index import Dim
from seed_exporter.graph.messages import attribute_of, input_of
from seed_exporter.shrink.channels import Channels, Mask
from seed_exporter.shrink.values import Edit, Values

F64 = npt.NDArray[np.float64]


class BarrierError(Exception):
    """A rule knows its operator, but not with these attributes or shapes: all channels stay."""


class Call:
    """A node on the way through the graph.

    Args:
        values: what is known of the graph so far.
        position: of the node in the graph.
        node: the node.
        grain: what to cut where there is a choice, see `analysis.analyse`.
    """

    def __init__(self, values: Values, position: int, node: onnx.NodeProto, grain: int) -> None:
        self.node, self.position, self.grain = node, position, grain
        self.opset = values.opset
        self._values = values
        self._seen: set[tuple[int, int]] = set()

    def input(self, index: int) -> str:
        """Return an input; "" where it is left out."""
        return input_of(self.node, index)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, strings as str."""
        return attribute_of(self.node, name, default)

    def shape(self, name: str) -> tuple[Dim, ...]:
        """Return what is known of a value's shape; sizes that are equal have the same name.

        Raises:
            BarrierError: not even its rank is known.
        """
        shape = self._values.shapes.get(name)
        if shape is None:
            self.refuse()
        return shape

    def rank(self, index: int) -> int:
        """Return the rank of an input."""
        return len(self.shape(self.input(index)))

    def axis(self, index: int, axis: int) -> Channels | None:
        """Return the channels along an axis of an input, which may be cut from now on as far as ties allow.

        None where the axis has one element or an unknown number of them.
        """
        axis %= max(self.rank(index), 1)
        self._seen.add((index, axis))
        return self._values.channels(self.input(index), axis)

    def known(self, index: int) -> np.ndarray | None:
        """Return the elements of an input that are known, NaN for others; None where none is known or it is left out.

        The array has the input's rank, and 1 element along axes on which elements don't depend.
        """
        name = self.input(index)
        return self._values.known(name) if name else None

    def vector(self, index: int, axis: int, size: int) -> F64:
        """Return for each channel along an axis of an input the one value of all its elements, NaN where unknown."""
        known = self.known(index)
        if known is None:
            return np.full(size, np.nan)
        rows = np.moveaxis(known, axis, 0).reshape(known.shape[axis], -1).astype(np.float64)
        least, largest = rows.min(axis=1), rows.max(axis=1)
        return np.broadcast_to(np.where(least == largest, least, np.nan), (size,))

    def integers(self, index: int) -> list[int] | None:
        """Return the integers of an input that is constant, None for others."""
        return self.integers_of(self.input(index))

    def integers_of(self, name: str) -> list[int] | None:
        """Return the integers of a value that is constant, None for others."""
        return self._values.integers(name)

    def constant(self, name: str) -> np.ndarray | None:
        """Return the values of a constant of floats; None for others."""
        return self._values.known(name) if self._values.is_constant(name) else None

    def is_constant(self, index: int) -> bool:
        """Return whether an input is an initializer that no caller can replace."""
        return self._values.is_constant(self.input(index))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a value."""
        return self._values.index.producers.get(name)

    def only_consumer(self, name: str) -> tuple[int, onnx.NodeProto] | None:
        """Return the one node of the main graph that reads a value, and its position; None where others do, too."""
        return self._values.only_consumer(name)

    def consumers(self, name: str) -> Sequence[tuple[onnx.NodeProto, int]] | None:
        """Return the nodes that read a value and at which input; None where the value leaves the graph."""
        index = self._values.index
        return None if name in index.returned else index.consumers.get(name, ())

    def tie(self, *axes: Channels | None) -> Channels | None:
        """Tie axes of the same length to each other and return one; where one isn't known, all channels stay."""
        known = [channels for channels in axes if channels is not None]
        if len(known) < len(axes) or len({channels.size for channels in known}) > 1:
            for channels in known:
                self.block(channels)
            return None
        for other in known[1:]:
            self._values.table.tie(known[0], other)
        return known[0] if known else None

    def block(self, channels: Channels | None, where: Mask | None = None) -> None:
        """Let channels stay, those of a mask or all."""
        if channels is not None:
            self._values.table.block(channels if where is None else channels[where])

    def keep_multiple(self, channels: Channels | None, multiple: int) -> None:
        """Let as many channels of an image stay as the runtime's fast operators take."""
        if channels is not None:
            self._values.table.keep_multiple(channels, multiple)

    def give(self, axes: Sequence[Channels | None], known: np.ndarray | None = None, output: int = 0) -> None:
        """Set the channels of an output, one entry an axis, and what is known of its elements."""
        if output < len(self.node.output) and self.node.output[output]:
            self._values.give(self.node.output[output], axes, known)

    def edit(self, edit: Edit) -> None:
        """Let a function fit this node once it is known which channels stay."""
        self._values.edits.setdefault(self.position, []).append(edit)

    def refuse(self) -> NoReturn:
        """Say that the rule doesn't know such a call."""
        raise BarrierError

    def block_unseen(self) -> None:
        """Let the channels along all axes stay that the rule hasn't asked for."""
        for index, name in enumerate(self.node.input):
            for axis in range(self._values.rank(name)) if name else ():
                if (index, axis) not in self._seen:
                    self.block(self._values.channels(name, axis))

    def forget(self) -> None:
        """Take back what was asked for, so that `block_unseen` blocks everything."""
        self._seen.clear()


Rule = Callable[[Call], None]

RULES: Final[dict[str, Rule]] = {}
"""Rules by operator of ONNX's own domain."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
        return function

    return register
