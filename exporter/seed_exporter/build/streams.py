"""Weights and their plans in, streams out.

Weights of one codec follow each other in the weights file, so that one stream, one set of tables and one set of lanes
serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joblib import Parallel, delayed

from seed_exporter.codecs import CODECS, codec_of
from seed_exporter.codecs.base import Codec, Plan, Progress
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs.encode.symbols import StreamEstimate

STREAM_SYMBOLS_MAX: Final = 1 << 27
"""Most elements of a stream: they and their classes are held at once while it is coded; 128 Mi make its lanes cheap."""

Plans = Mapping[str, Plan]
"""The plan of each weight, by the weight's name."""


@dataclass(frozen=True)
class Group:
    """Weights that share a stream, in the order of the weights file."""

    codec: Codec[Any, Any]
    weights: tuple[Weight, ...]

    @property
    def names(self) -> list[str]:
        """Names of the weights."""
        return [weight.name for weight in self.weights]


@dataclass(frozen=True)
class CodedStream:
    """One stream: the weights that it fills, in order, and its chunks."""

    codec: Codec[Any, Any]
    names: list[str]
    chunks: list[bytes]
    entropy_bits: float
    """Entropy of the symbols under their contexts; 0 for codecs without symbols."""

    @property
    def size(self) -> int:
        """Size of all chunks [B]."""
        return sum(map(len, self.chunks))


@dataclass(frozen=True)
class EstimatedStream:
    """One stream that isn't coded: the weights that it would fill, and its sizes."""

    codec: Codec[Any, Any]
    names: list[str]
    sizes: StreamEstimate


class StreamEncoder:
    """Codes one graph's weights many times, as a search does, and nothing twice in a row.

    Memory: what it keeps takes as much as a seed, and a byte for each weight on a grid.
    """

    def __init__(self, graph: Graph, jobs: int = 2, *, keep: bool = True) -> None:
        """Prepare to code a graph.

        Args:
            graph: stays as it is.
            jobs: threads that prepare weights.
            keep: keep streams and prepared weights for the next call; never done where a graph is too large for it.
        """
        self.graph, self.jobs = graph, jobs
        self._keeps = keep and graph.parameters <= STREAM_SYMBOLS_MAX
        self._coded: dict[_Place, tuple[list[Plan], CodedStream]] = {}
        self._estimated: dict[_Place, tuple[list[Plan], EstimatedStream]] = {}
        self._prepared: dict[str, tuple[Plan, Any]] = {}

    def encode(
        self, plans: Plans, *, names: Iterable[str] | None = None, progress: Progress | None = None
    ) -> list[CodedStream]:
        """Code all streams, in the order in which their weights stand in the weights file.

        Args:
            plans: of all weights.
            names: the weights to code, in the graph's order; all by default.
            progress: called with the number of elements done since its last call.
        """

        def code(group: Group) -> CodedStream:
            stream = group.codec.encode(self._prepare(group, plans), report)
            return CodedStream(group.codec, group.names, stream.chunks, stream.entropy_bits)

        streams = []
        for place, group in self._groups(plans, names):
            done, report = 0, None
            if progress is not None:

                def report(count: int) -> None:
                    nonlocal done
                    done += count
                    progress(count)

            streams.append(self._cached(self._coded, place, group, plans, code))
            if progress is not None:
                # What no symbols stand for: zeros, bytes, and streams that were kept.
                progress(sum(weight.count for weight in group.weights) - done)
        return streams

    def estimate(self, plans: Plans, *, names: Iterable[str] | None = None) -> list[EstimatedStream]:
        """Compute the sizes of all streams within 0.1 %, by the tables that coding would use."""

        def size(group: Group) -> EstimatedStream:
            return EstimatedStream(group.codec, group.names, group.codec.estimate(self._prepare(group, plans)))

        return [self._cached(self._estimated, place, group, plans, size) for place, group in self._groups(plans, names)]

    def estimate_bytes(self, plans: Plans) -> dict[str, float]:
        """Estimate the size of each weight, with its share of what its stream's weights share [B]."""
        return {
            name: size
            for stream in self.estimate(plans)
            for name, size in zip(stream.names, stream.sizes.tensors, strict=True)
        }

    def _groups(self, plans: Plans, names: Iterable[str] | None) -> Iterator[tuple[_Place, Group]]:
        chosen = self.graph.weights.values() if names is None else [self.graph.weights[name] for name in names]
        for number, group in enumerate(groups(chosen, plans)):
            yield (group.codec.name, number), group

    def _cached(
        self, cache: dict[Any, Any], place: _Place, group: Group, plans: Plans, make: Callable[[Group], Any]
    ) -> Any:
        asked = [(name, plans[name]) for name in group.names]
        known = cache.get(place)
        if known is not None and known[0] == asked:
            return known[1]
        made = make(group)
        if self._keeps:
            cache[place] = asked, made
        return made

    def _prepare(self, group: Group, plans: Plans) -> list[Any]:
        def prepare(index: int, weight: Weight) -> Any:
            plan = plans[weight.name]
            known_plan, prepared = self._prepared.get(weight.name, (None, None))
            if known_plan != plan:
                prepared = group.codec.prepare(weight, plan, index)
                if self._keeps and group.codec.reuses_prepared:
                    self._prepared[weight.name] = plan, prepared
            return prepared

        # Threads: NumPy lets go of the interpreter in all that takes time here, and weights need no copy.
        found: list[Any] = Parallel(n_jobs=self.jobs, prefer="threads")(
            delayed(prepare)(index, weight) for index, weight in enumerate(group.weights)
        )
        return found


_Place = tuple[str, int]
"""Name of a codec and number of the stream: what a kept stream is found by."""


def encode(graph: Graph, plans: Plans, *, jobs: int = 2, progress: Progress | None = None) -> list[CodedStream]:
    """Code a graph's weights once, and keep nothing."""
    return StreamEncoder(graph, jobs, keep=False).encode(plans, progress=progress)


def restored(weight: Weight, plan: Plan) -> Any:
    """Compute a weight as a device will have it, in the layout of `Weight.data`, without coding it."""
    return codec_of(plan).restore(weight, plan)


def order_of(streams: Sequence[CodedStream | EstimatedStream]) -> list[str]:
    """List the weights in the order of the weights file."""
    return [name for stream in streams for name in stream.names]


def groups(weights: Iterable[Weight], plans: Plans) -> Iterator[Group]:
    """Group weights that share a stream: of one codec and key, within the limits of one stream."""
    order = list(CODECS.values())
    kinds: dict[tuple[int, str], list[Weight]] = {}
    for weight in weights:
        codec = codec_of(plans[weight.name])
        kinds.setdefault((order.index(codec), codec.stream_key(weight)), []).append(weight)
    for (number, _), members in sorted(kinds.items(), key=lambda item: item[0]):
        codec = order[number]
        group: list[Weight] = []
        sides = count = 0
        for weight in members:
            own = codec.sides(weight)
            if group and (sides + own > codec.sides_max or count + weight.count > STREAM_SYMBOLS_MAX):
                yield Group(codec, tuple(group))
                group, sides, count = [], 0, 0
            group.append(weight)
            sides, count = sides + own, count + weight.count
        yield Group(codec, tuple(group))
