"""Skeletons: models without weights, with the table of holes that the weights fill.

A kind of skeleton is one module here with `matches` and a class `Builder`, and one entry in `_KINDS`.
"""

from __future__ import annotations

from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import onnx, tflite
from seed_exporter.skeletons.layout import HoleLayout, Skeleton, SkeletonBuilder

__all__ = ["HoleLayout", "Skeleton", "SkeletonBuilder", "builder_for"]

_KINDS = (onnx, tflite)


def builder_for(graph: Graph) -> SkeletonBuilder:
    """Return the builder for the kind of skeleton that the graph's model becomes."""
    return next(kind for kind in _KINDS if kind.matches(graph)).Builder(graph)
