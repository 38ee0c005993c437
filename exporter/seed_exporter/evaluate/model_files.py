"""Write a graph as the plain files that ONNX Runtime opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from seed_exporter.graph.model import Graph, Weight
from seed_exporter.skeletons import SkeletonBuilder, builder_for
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE

Weights = Mapping[str, np.ndarray] | Callable[[Weight], np.ndarray]
"""Data of weights in the layout of `Weight.data`: by name, or a function that is called for one weight at a time."""


def write_model_files(
    graph: Graph, folder: Path, weights: Weights | None = None, builder: SkeletonBuilder | None = None
) -> Path:
    """Write `model.onnx` and `model.weights` into `folder`.

    Args:
        graph: the model.
        folder: an existing folder; older files of these names are replaced.
        weights: data to write in place of the graph's own.
        builder: a builder for the same graph, for callers who write it many times.

    Returns:
        The path of `model.onnx`.

    Raises:
        ValueError: the data given for a weight has another size than the weight.
    """
    skeleton = (builder or builder_for(graph)).build_unchecked(list(graph.weights))
    with (folder / WEIGHTS_FILE).open("wb") as file:
        for hole in skeleton.holes:
            weight = graph.weights[hole.name]
            if weights is None:
                data = weight.data
            else:
                data = weights(weight) if callable(weights) else weights[hole.name]
            data = np.ascontiguousarray(data, dtype=weight.dtype.storage)
            if data.nbytes != hole.size:
                raise ValueError(f"{hole.name} takes {hole.size} bytes, not {data.nbytes}")
            file.seek(hole.offset)
            file.write(data.reshape(-1).view(np.uint8).data)
        file.truncate(skeleton.weights_size)
    path = folder / MODEL_FILE
    path.write_bytes(skeleton.data)
    return path
