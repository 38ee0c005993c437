"""One cut through a graph: which channels go, and the tensors and nodes that come in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from seed_exporter.graph.edit import FreshNames
from seed_exporter.shrink.channels import Channels, Mask


class Cut:
    """Fits tensors and nodes to the channels that stay.

    Args:
        removed: whether a channel goes, by its number.
        nodes: the nodes of a copy of the graph, which edits change.
        names: makes names.

    Attributes:
        tensors: new initializers by name.
        before: new nodes, by the position of the node that they come before.
        after: the same for nodes that they come after.
    """

    def __init__(self, removed: Mask, nodes: list[onnx.NodeProto], names: FreshNames) -> None:
        self._removed, self._names = removed, names
        self.nodes = nodes
        self.tensors: dict[str, np.ndarray] = {}
        self._made: dict[tuple[str, ...], str] = {}
        self.before: dict[int, list[onnx.NodeProto]] = {}
        self.after: dict[int, list[onnx.NodeProto]] = {}

    def removed(self, channels: Channels) -> Mask:
        """Return which of the channels along an axis go."""
        return self._removed[channels]

    def count(self, channels: Channels) -> int:
        """Return how many of the channels along an axis stay."""
        return int(channels.size - self._removed[channels].sum())

    def along(self, array: np.ndarray, channels: Channels | None, axis: int = 0) -> np.ndarray:
        """Return an array without the channels that go along one of its axes."""
        if channels is None or array.shape[axis] != channels.size:
            return array
        return np.compress(~self._removed[channels], array, axis=axis)

    def constant(self, values: np.ndarray | Iterable[int]) -> str:
        """Add an initializer, int64 if its values are no array, and return its name."""
        array = np.ascontiguousarray(values if isinstance(values, np.ndarray) else np.array(list(values), np.int64))
        for name, other in self.tensors.items():
            if other.dtype == array.dtype and np.array_equal(other, array):
                return name
        name = self.fresh_name()
        self.tensors[name] = array
        return name

    def joined(self, parts: Sequence[str], position: int) -> str:
        """Add a node that joins vectors, before the node at a position, and return its result.

        Nodes must ask in their order: the same parts are joined once.
        """
        key = tuple(parts)
        if key not in self._made:
            self._made[key] = self.fresh_name()
            node = onnx.helper.make_node("Concat", parts, [self._made[key]], axis=0)
            self.before.setdefault(position, []).append(node)
        return self._made[key]

    def fresh_name(self) -> str:
        """Return a name for a value."""
        return self._names.take("cut")

    def set(self, node: onnx.NodeProto, name: str, value: int | list[int] | None) -> None:
        """Set an attribute of a node; None removes it."""
        for at, attribute in enumerate(node.attribute):
            if attribute.name == name:
                del node.attribute[at]
                break
        if value is not None:
            node.attribute.append(onnx.helper.make_attribute(name, value))
