"""A written seed in torch: what the runtime assembles of it, judged on a GPU as the networks of this bench are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import seed_runtime
from seed_exporter import loaders
from seed_exporter.heal.interpreter import Interpreter

COMPARED = 4  # samples that ONNX Runtime answers as well


class Assembled(nn.Module):
    """The assembled model of a seed; takes what the network takes that it was made of, and gives its logits.

    Args:
        seed: the file.
        where: the device.
    """

    def __init__(self, seed: Path, where: torch.device) -> None:
        super().__init__()
        self._seed = seed
        with tempfile.TemporaryDirectory() as folder:
            assembled = seed_runtime.open(seed, enforce=False).assemble(Path(folder) / "model")
            graph = loaders.load(str(assembled / "model.onnx"))
            self._interpreter = Interpreter(graph, device=where)
            self._weights = self._interpreter.weights()
        proto = graph.model.graph
        self.inputs = [value.name for value in proto.input if value.name not in graph.weights]
        (self.output,) = (value.name for value in proto.output)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits."""
        return self._interpreter.run(dict(zip(self.inputs, inputs, strict=True)), self._weights)[self.output]

    @torch.no_grad()
    def difference(self, *inputs: Tensor) -> float:
        """Return the largest difference to what the runtime answers, in largest logits, on a few samples."""
        few = [each[:COMPARED] for each in inputs]
        found = self(*few).float().cpu().numpy()
        with seed_runtime.open(self._seed, enforce=False).session() as session:
            arrays = [np.ascontiguousarray(each.cpu().numpy()) for each in few]
            feeds = dict(zip(self.inputs, arrays, strict=True))
            expected = session.run(feeds)[self.output]
        return float(np.abs(found - expected).max() / np.abs(expected).max())
