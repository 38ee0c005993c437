"""A skeleton, or one joined to its training graph, as a graph whose weights are all that fill its holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from seed_exporter.graph.model import Graph, Weight
from seed_runtime.format.parts.kind import HoleLike
from seed_runtime.skeletons.info import check_holes
from seed_runtime.skeletons.onnx import scan


def graph_of(skeleton: bytes, part: bytes, holes: Sequence[HoleLike], read: Callable[[int], np.ndarray]) -> Graph:
    """Return a graph with the skeleton's names; a loader would keep small tensors within it, and equal ones once.

    Args:
        skeleton: a model without its weights.
        part: what is joined to it; may be empty.
        holes: of the skeleton.
        read: returns the elements of a hole by its number.
    """
    weights = {
        name: Weight(name, hole.dtype, hole.dims, np.ascontiguousarray(read(number)).reshape(hole.dims))
        for number, (name, hole) in enumerate(zip(check_holes(scan(skeleton), holes), holes, strict=True))
    }
    model = onnx.ModelProto.FromString(skeleton + part)
    for field in (model.graph.initializer, model.graph.input):
        others = [each for each in field if each.name not in weights]
        del field[:]
        field.extend(others)
    return Graph(model, weights, ())
