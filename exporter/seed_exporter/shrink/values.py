"""Values of a graph: their channels, which can be removed together, and what is known of their elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import onnx

from seed_exporter.gradients.sizes import name_sizes
from seed_exporter.graph.index import Dim, GraphIndex
from seed_exporter.graph.inference import weights_as_inputs, with_types
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of
from seed_exporter.shrink.channels import Channels, ChannelTable
from seed_exporter.shrink.cut import Cut

Edit = Callable[[Cut, onnx.NodeProto], None]
"""Function that fits a node, which it may change, to the channels that stay."""

LENGTH_MAX: Final = 1 << 20
"""Size of an axis above which it isn't looked at: it counts no channels."""
KNOWN_MAX: Final = 1 << 20
"""Number of elements above which what is known of a value is forgotten: these are weights, not channels."""


class Values:
    """What is known of the values of one graph, while rules follow its nodes.

    Args:
        graph: the graph.

    Attributes:
        graph: the graph.
        index: of the graph.
        nodes: the nodes of the main graph.
        table: channels, and how they are tied.
        edits: functions that fit a node to the channels that stay, by the node's position.
        axes: channels along each axis of values and initializers; None where no rule looks at an axis.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.index = graph, GraphIndex(graph)
        self.table = ChannelTable()
        self.edits: dict[int, list[Edit]] = {}
        self.axes: dict[str, list[Channels | None]] = {}
        self._known: dict[str, np.ndarray | None] = {}
        main = graph.model.graph
        self.nodes = list(main.node)
        given = {value.name for value in main.input}
        self._constants = {tensor.name: tensor for tensor in main.initializer if tensor.name not in given}

    @cached_property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return opset_of(self.graph.model)

    @cached_property
    def shapes(self) -> dict[str, tuple[Dim, ...]]:
        """Shapes of all values as far as they are known, with names for unknown sizes."""
        typed = GraphIndex(with_types(weights_as_inputs(self.graph)).graph)
        return name_sizes(self.index.graph, {**self.index.shapes, **typed.shapes}, self.integers)

    def rank(self, name: str) -> int:
        """Return the rank of a value; 0 where it isn't known."""
        return len(self.shapes.get(name, ()))

    def channels(self, name: str, axis: int) -> Channels | None:
        """Return the channels along an axis; None where it has one or an unknown number, and of the model's inputs."""
        axes = self.axes.setdefault(name, [None] * self.rank(name))
        if axis >= len(axes):
            return None
        data = self.data(name) if axes[axis] is None and name in self._constants else None
        if data is not None and 1 < data.shape[axis] <= LENGTH_MAX:
            axes[axis] = self.table.take(data.shape[axis])
        return axes[axis]

    def give(self, name: str, axes: Sequence[Channels | None], known: np.ndarray | None) -> None:
        """Set what is known of a value that a node makes."""
        shape = self.shapes.get(name, (None,) * len(axes))
        agrees = len(shape) == len(axes) and all(
            one is None or not isinstance(size, int) or size == one.size for one, size in zip(axes, shape, strict=True)
        )
        if not agrees:
            for channels in axes:
                if channels is not None:
                    self.table.block(channels)
            return
        self.axes[name] = list(axes)
        if known is not None and known.size <= KNOWN_MAX and (finite := np.isfinite(known)).any():
            self._known[name] = np.where(finite, known, np.array(np.nan, known.dtype))

    def known(self, name: str) -> np.ndarray | None:
        """Return the elements of a value that are known, NaN for others, see `Call.known`."""
        if name not in self._known and name in self._constants:
            data = self.data(name)
            self._known[name] = data if data is not None and data.dtype.kind == "f" else None
        return self._known.get(name)

    def is_constant(self, name: str) -> bool:
        """Return whether this is an initializer that no caller can replace."""
        return name in self._constants

    def integers(self, name: str) -> list[int] | None:
        """Return the integers of a constant; None for others."""
        data = self.data(name) if name in self._constants else None
        return None if data is None or data.dtype.kind not in "iu" else [int(each) for each in data.reshape(-1)]

    def data(self, name: str) -> np.ndarray | None:
        """Return the elements of an initializer as they are stored; None where they don't lie one by one."""
        weight = self.graph.weights.get(name)
        if weight is not None:
            return weight.data if weight.data.shape == weight.shape else None
        tensor = self._constants[name]
        array = onnx.numpy_helper.to_array(tensor)
        # Some types are read as others, which couldn't be written back.
        return array if onnx.helper.np_dtype_to_tensor_dtype(array.dtype) == tensor.data_type else None

    def only_consumer(self, name: str) -> tuple[int, onnx.NodeProto] | None:
        """Return the one node of the main graph that reads a value once, and its position."""
        consumers = self.index.consumers.get(name, ())
        if len(consumers) != 1 or name in self.index.returned:
            return None
        return next(((at, node) for at, node in enumerate(self.nodes) if name in node.input), None)

    def forget(self, names: Sequence[str]) -> None:
        """Take back what was set for some values."""
        for name in names:
            self.axes.pop(name, None)
            self._known.pop(name, None)

    def block(self, name: str) -> None:
        """Let all channels of a value stay."""
        for axis in range(self.rank(name)):
            if (channels := self.channels(name, axis)) is not None:
                self.table.block(channels)
