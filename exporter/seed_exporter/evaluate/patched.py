"""A model on disk of which a few weights are replaced for one run, and then put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seed_exporter.evaluate import run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import SkeletonBuilder
from seed_runtime.backends import Array, Feeds
from seed_runtime.skeletons import KINDS


class PatchedModel:
    """The files of a graph, written once; a run with other weights writes and restores only these."""

    def __init__(self, graph: Graph, folder: Path, skeletons: SkeletonBuilder) -> None:
        """Write the model.

        Args:
            graph: stays as it is.
            folder: an empty folder, which belongs to this object from now on.
            skeletons: builder of the graph's skeletons.
        """
        self._graph, self._folder = graph, folder
        write_model_files(graph, folder, builder=skeletons)
        skeleton = skeletons.build_unchecked(list(graph.weights))
        self._file = folder / KINDS[skeleton.kind].layout.weights_file
        if graph.file is None:
            self._offsets = {hole.name: hole.offset for hole in skeleton.holes}
        else:
            self._offsets = {name: place.offset for name, place in graph.file.places.items()}

    def run(self, weights: Mapping[str, np.ndarray], feeds: Sequence[Feeds]) -> list[dict[str, Array]]:
        """Run the model with other data for some weights, in the layout of `Weight.data`."""
        try:
            self._write(weights)
            return run.run_all(self._folder, feeds)
        finally:
            self._write({name: self._graph.weights[name].data for name in weights})

    def _write(self, weights: Mapping[str, np.ndarray]) -> None:
        with self._file.open("r+b") as file:
            for name, data in weights.items():
                file.seek(self._offsets[name])
                file.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
