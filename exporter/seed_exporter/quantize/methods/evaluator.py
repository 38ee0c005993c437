"""What a method may ask while it chooses: the size and the error of a choice, by doing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seed_exporter.build import draft
from seed_exporter.build.streams import Encoder
from seed_exporter.evaluate import compare, run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import Coding
from seed_exporter.skeletons import SkeletonBuilder
from seed_runtime.backends import Array, Feeds
from seed_runtime.format.header import ModelInfo


@dataclass(frozen=True)
class Choice:
    """Codings of all weights. `met`: they keep the goal, or there was none."""

    codings: dict[str, Coding]
    met: bool = True


@dataclass(frozen=True)
class Trial:
    """A graph, the size wanted of its seed [B], and inputs with the original's outputs."""

    encoder: Encoder
    skeletons: SkeletonBuilder
    """Of the encoder's graph."""
    model: ModelInfo
    front_bytes: int
    """Of golden sample and footprint, which a trial doesn't make."""
    goal: int | None
    feeds: Sequence[Feeds]
    expected: Sequence[Mapping[str, Array]]
    folder: Path
    """For models with other weights."""

    @property
    def graph(self) -> Graph:
        return self.encoder.graph

    @property
    def source_bytes(self) -> int:
        return self.graph.distinct_bytes

    def size_of(self, codings: Mapping[str, Coding]) -> int:
        """Bytes of the whole seed, within 0.1 % and not less than it will have."""
        streams = self.encoder.streams(codings, sizes_only=True)
        return draft.build(self.graph, streams, self.model, self.skeletons).size + self.front_bytes

    def error_with(self, data: Callable[[Weight], np.ndarray]) -> float:
        """The worst output's relative error of the original model with other weights."""
        outputs = list(self._outputs(data))
        return compare.worst_relative(compare.compare(self.expected, outputs))

    def keeps(self, data: Callable[[Weight], np.ndarray], error: float) -> bool:
        """Whether `error_with` is at most `error`; where it is far more, the first input shows it."""
        seen: list[Mapping[str, Array]] = []
        for outputs in self._outputs(data):
            seen.append(outputs)
            if len(seen) in (1, len(self.feeds)):
                # As if all inputs to come made no error at all.
                errors = compare.compare(self.expected, [*seen, *self.expected[len(seen) :]])
                if compare.worst_relative(errors) > error:
                    return False
        return True

    def kept_bytes(self) -> int:
        """About what all but the matrices takes: vectors, integers, graph and header."""
        codings = allocate.uniform(self.graph, 1.0, allocate.VECTOR_BITS[1])
        rest = [name for name in self.graph.weights if codings[name].codec != "grid"]
        streams = self.encoder.streams(codings, names=rest, sizes_only=True)
        return sum(stream.size for stream in streams) + 40 * len(self.graph.weights) + 4096

    def _outputs(self, data: Callable[[Weight], np.ndarray]) -> Iterator[dict[str, Array]]:
        write_model_files(self.graph, self.folder, data, self.skeletons)
        return run.iterate_outputs(self.folder, self.feeds)
