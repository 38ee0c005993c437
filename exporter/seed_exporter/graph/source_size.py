"""Size of the original, to which the seed's is compared: that of its weights, or of all of it if they are no tensors.

The numbers of a forest of trees are lists in its node's attributes, and a model may have no numbers at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx

from seed_exporter.graph.index import all_graphs
from seed_exporter.graph.model import Graph

_LIST_MIN: Final = 64
"""Number of values from which an attribute holds numbers of the model's, and not a shape or a permutation."""


@dataclass(frozen=True)
class SourceSize:
    """Size of the original.

    Attributes:
        bytes: size to which ratios refer [B].
        numbers: number of weights, those in attributes included where these are more.
        in_attributes: True if most of the model's numbers are no tensors: `bytes` is then all of the model.
    """

    bytes: int
    numbers: int
    in_attributes: bool


def source_size(graph: Graph) -> SourceSize:
    """Return the size of the original that a graph was made from."""
    lists = list(_lists(graph.model.graph))
    if sum(size for _, size in lists) < graph.distinct_bytes:
        return SourceSize(graph.distinct_bytes, graph.parameters, in_attributes=False)
    whole = graph.model.ByteSize() + graph.distinct_bytes
    return SourceSize(whole, graph.parameters + sum(count for count, _ in lists), in_attributes=True)


def _lists(graph: onnx.GraphProto) -> Iterator[tuple[int, int]]:
    """Yield the number of values and the bytes of each long list among the attributes of nodes."""
    for inner in all_graphs(graph):
        for node in inner.node:
            for attribute in node.attribute:
                count = len(attribute.floats) + len(attribute.ints) + len(attribute.strings)
                if attribute.type == onnx.AttributeProto.TENSOR:
                    count = math.prod(attribute.t.dims)
                if count >= _LIST_MIN:
                    yield count, attribute.ByteSize()
