"""Write a graph as the plain files that its backend opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from seed_exporter.graph.model import Graph, Weight
from seed_exporter.skeletons import SkeletonBuilder, builder_for
from seed_runtime import backends
from seed_runtime.format.parts import ONNX_SKELETON, TFLITE_SKELETON
from seed_runtime.skeletons import KINDS

Weights = Mapping[str, np.ndarray] | Callable[[Weight], np.ndarray]
"""Data of weights in the layout of `Weight.data`: by name, or a function that is called for one weight at a time."""


def write_model_files(
    graph: Graph, folder: Path, weights: Weights | None = None, builder: SkeletonBuilder | None = None
) -> Path:
    """Write the files of the model into `folder`, such as `model.onnx` and `model.weights`.

    Args:
        graph: the model.
        folder: an existing folder; older files of these names are replaced.
        weights: data to write in place of the graph's own.
        builder: a builder for the same graph, for callers who write it many times.

    Returns:
        The path of the file that a backend opens.

    Raises:
        ValueError: the data given for a weight has another size than the weight.
    """
    skeleton = (builder or builder_for(graph)).build_unchecked(list(graph.weights))
    layout = KINDS[skeleton.kind].layout
    with layout.begin(folder, skeleton.data) as output:
        for hole in skeleton.holes:
            weight = graph.weights[hole.name]
            if weights is None:
                data = weight.data
            else:
                data = weights(weight) if callable(weights) else weights[hole.name]
            data = np.ascontiguousarray(data, dtype=weight.dtype.storage)
            if data.nbytes != hole.size:
                raise ValueError(f"{hole.name} takes {hole.size} bytes, not {data.nbytes}")
            output.skip(hole.skip)
            output.write(data.reshape(-1).view(np.uint8).data)
    return folder / layout.model_file


def backend_name(graph: Graph) -> str:
    """Return the name of what runs a graph's model."""
    return KINDS[(TFLITE_SKELETON if graph.file is not None else ONNX_SKELETON).number].backend


def backend_of(folder: Path) -> backends.Backend:
    """Return what runs the model in `folder`."""
    for kind in KINDS.values():
        if (folder / kind.layout.model_file).is_file():
            return backends.get(kind.backend)
    raise ValueError(f"no model is in {folder}")
