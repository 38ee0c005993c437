"""What a method may ask while it chooses: the size and the error of a choice, by doing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seed_exporter import allocate, container, fidelity
from seed_exporter.allocate import Coding
from seed_exporter.encode import encode
from seed_exporter.graph import Graph, Weight
from seed_exporter.loaders.runnable import to_model_file
from seed_runtime.backends import Array, Feeds
from seed_runtime.format.header import Model


@dataclass(frozen=True)
class Choice:
    """Codings of all weights. `met`: they keep the goal, or there was none."""

    codings: dict[str, Coding]
    met: bool = True


@dataclass(frozen=True)
class Trial:
    """A graph, the size wanted of its seed [B], and inputs with the original's outputs."""

    graph: Graph
    model: Model
    front_bytes: int
    """Of golden sample and footprint, which a trial doesn't make."""
    goal: int | None
    feeds: Sequence[Feeds]
    expected: Sequence[Mapping[str, Array]]
    folder: Path
    """For assembled models."""
    jobs: int

    @property
    def source_bytes(self) -> int:
        return self.graph.distinct_bytes

    def size_of(self, codings: Mapping[str, Coding]) -> int:
        """Bytes of the whole seed, within 0.1 % and not less than it will have."""
        streams = encode(self.graph, codings, jobs=self.jobs, sizes_only=True)
        return container.build(self.graph, streams, self.model).size + self.front_bytes

    def error_of(self, codings: Mapping[str, Coding]) -> float:
        """The worst output's relative error, of the model as a device would assemble it."""
        streams = encode(self.graph, codings, jobs=self.jobs)
        container.build(self.graph, streams, self.model).assemble(self.folder)
        return self._error()

    def error_with(self, data: Callable[[Weight], np.ndarray]) -> float:
        """The same with other weights in the original model."""
        to_model_file(self.graph, self.folder, data)
        return self._error()

    def kept_bytes(self) -> int:
        """About what all but the matrices takes: vectors, integers, graph and header."""
        codings = allocate.uniform(self.graph, 1.0, allocate.VECTOR_BITS[1])
        rest = {name: weight for name, weight in self.graph.weights.items() if codings[name].codec != "grid"}
        streams = encode(Graph(self.graph.model, rest), codings, jobs=self.jobs, sizes_only=True)
        return sum(stream.size for stream in streams) + 40 * len(self.graph.weights) + 4096

    def _error(self) -> float:
        outputs: list[dict[str, Any]] = fidelity.run_all(self.folder, self.feeds)
        return fidelity.worst_relative(fidelity.compare(self.expected, outputs))
