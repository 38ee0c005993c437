"""Join skeletons and training graphs as a device does, and run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import builder_for
from seed_exporter.training import training_part
from seed_runtime import backends
from seed_runtime.skeletons.training import COSINE, SQUARED_ERROR, TARGET, TrainingInfo, scan_training

CROSS_ENTROPY = "cross-entropy"
FACTORS = {CROSS_ENTROPY: "", "squared error": SQUARED_ERROR, "cosine": COSINE}
"""Losses by the names of their factors; that of the cross-entropy says its axis."""


class Joined:
    """A prepared graph's skeleton with its training graph behind it, open in ONNX Runtime."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        skeleton = builder_for(graph).build(list(graph.weights))
        self.part = training_part(graph, list(graph.weights))
        self.info: TrainingInfo = scan_training(self.part, skeleton.data, skeleton.holes)
        self.names = {hole.name: number for number, hole in enumerate(skeleton.holes)}
        write_model_files(graph, folder)
        self._runner = backends.get().open_joined(skeleton.data + self.part, folder)

    def sources(self) -> dict[str, str]:
        """Return the outputs of gradients by the names of tensors in the source."""
        by_hole = {number: name for name, number in self.names.items()}
        return {by_hole[each.hole]: each.output for each in self.info.tensors}

    def run(self, outputs: list[str], feeds: Mapping[str, np.ndarray], target: np.ndarray, loss: str, scale: float):
        """Run it with one of the losses, times a factor."""
        names = FACTORS | {CROSS_ENTROPY: self.info.cross_entropy}
        factors = {name: np.array(scale if each == loss else 0, np.float32) for each, name in names.items()}
        found = self._runner.run({**feeds, TARGET: target, **factors}, outputs)
        return [found[name] for name in outputs]
