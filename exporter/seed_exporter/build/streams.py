"""Weights and their plans in, streams out.

Weights of one codec follow each other in the weights file, so that one stream, one set of tables and one set of lanes
serve them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from joblib import Parallel, delayed

from seed_exporter.codecs import CODECS, codec_of, smaller
from seed_exporter.codecs.base import Codec, Plan, Progress
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs.encode.symbols import StreamEstimate
from seed_runtime.limits import ADAPTIVE_STREAMS_MAX

STREAM_SYMBOLS_MAX: Final = 1 << 27
"""Most elements of a stream: they and their classes are held at once while it is coded; 128 Mi make its lanes cheap."""
ONE_THREAD_MAX: Final = 1 << 15
"""Parameters of a model that one thread plans and codes sooner than several: joblib polls for results, every 10 ms."""

Plans = Mapping[str, Plan]
"""The plan of each weight, by the weight's name."""


@dataclass(frozen=True)
class Group:
    """Weights that share a stream, in the order of the weights file."""

    codec: Codec[Any, Any]
    weights: tuple[Weight, ...]
    part: int
    """Number of streams of the same codec and key that come before it."""

    @property
    def names(self) -> list[str]:
        """Names of the weights."""
        return [weight.name for weight in self.weights]

    @property
    def place(self) -> _Place:
        """Codec, key and part: equal for the groups of several plannings that correspond to each other."""
        return self.codec.name, self.codec.stream_key(self.weights[0]), self.part

    def planned(self, plans: Plans) -> list[tuple[str, Plan]]:
        """List the names of the weights with their plans: groups that are equal in this have equal bytes."""
        return [(name, plans[name]) for name in self.names]


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
    """Sizes one graph's weights under many plans, as a search does, and codes them; nothing is computed twice in a row.

    Memory: what it keeps takes a byte for each weight on a grid, and what weights take that had to be coded to learn
    their size. The plans that belong to it are kept as well, with the integers that they may hold.
    """

    def __init__(self, graph: Graph, jobs: int = 2, *, keep: bool = True, trained: bool = False) -> None:
        """Prepare to code a graph.

        Args:
            graph: stays as it is.
            jobs: threads that prepare weights, where there is work for more than one.
            keep: keep sizes and prepared weights for the next call; never done where a graph is too large for it.
            trained: plans are trained, not searched for: more time may be taken for a size.
        """
        self.graph, self._trained = graph, trained
        self.jobs = jobs if graph.parameters > ONE_THREAD_MAX else 1
        self._keeps = keep and graph.parameters <= STREAM_SYMBOLS_MAX
        self._sizes: dict[_Place, tuple[list[tuple[str, Plan]], _Sized]] = {}
        self._prepared: dict[str, tuple[Plan, Any]] = {}

    def encode(
        self, plans: Plans, progress: Progress | None = None, *, order: Sequence[str] | None = None
    ) -> list[CodedStream]:
        """Code all streams, in the order in which their weights stand in the weights file.

        Args:
            plans: of all weights.
            progress: called with the number of elements done since its last call.
            order: of the weights in the weights file; None for one in which those of a codec stand together.
        """
        streams = []
        grouped = groups(self.graph.weights.values(), plans)
        if order is not None:
            grouped = runs([self.graph.weights[name] for name in order], plans)
        for group in grouped:
            done, report = 0, None
            if progress is not None:

                def report(count: int) -> None:
                    nonlocal done
                    done += count
                    progress(count)

            codec, sizes = self._known(group, plans) or (group.codec, None)
            stream = None if sizes is None else sizes.coded
            if stream is None:
                prepared = self._prepare(group, plans)
                if sizes is None and (found := self._smaller(group, prepared)) is not None:
                    codec, sizes = found
                stream = (sizes and sizes.coded) or codec.encode(prepared, report)
            streams.append(CodedStream(codec, group.names, stream.chunks, stream.entropy_bits))
            if progress is not None:
                # What no symbols stand for: zeros, bytes, and streams that were coded before.
                progress(sum(weight.count for weight in group.weights) - done)
        return streams

    def estimate(self, plans: Plans, *, names: Iterable[str] | None = None) -> list[EstimatedStream]:
        """Compute the sizes of all streams within 0.1 %, by the tables that coding would use.

        Args:
            plans: of all weights.
            names: the weights to size, in the graph's order; all by default.
        """
        weights = self.graph.weights.values() if names is None else [self.graph.weights[name] for name in names]
        found = []
        for group in groups(weights, plans):
            known = self._known(group, plans)
            if known is None:
                prepared = self._prepare(group, plans)
                sizes = group.codec.estimate(prepared)
                known = self._smaller(group, prepared, sizes) or (group.codec, sizes)
                if self._keeps:
                    self._sizes[group.place] = group.planned(plans), known
            found.append(EstimatedStream(known[0], group.names, known[1]))
        return found

    def estimate_bytes(self, plans: Plans) -> dict[str, float]:
        """Estimate the size of each weight, with its share of what its stream's weights share [B]."""
        return {
            name: size
            for stream in self.estimate(plans)
            for name, size in zip(stream.names, stream.sizes.tensors, strict=True)
        }

    def estimate_candidates(self, plans: Plans, candidates: Mapping[str, Sequence[Plan]]) -> dict[str, list[float]]:
        """Estimate what weights would take by other plans, while tables and all other weights stay as planned [B].

        This is the rate for an allocation by slopes, near the truth where steps change by some tens of percent. Plans
        of a codec that has no stream yet count as alone in one.

        Args:
            plans: of all weights.
            candidates: other plans of some weights, by the weights' names.
        """
        sizes: dict[tuple[str, str], Callable[[Any], float]] = {}
        for group in groups(self.graph.weights.values(), plans):
            key = group.codec.name, group.codec.stream_key(group.weights[0])
            if key not in sizes:
                sizes[key] = group.codec.size_among(self._prepare(group, plans))

        def size(weight: Weight, plan: Plan) -> float:
            codec = codec_of(plan)
            prepared = codec.prepare(weight, plan, 0)
            among = sizes.get((codec.name, codec.stream_key(weight))) or codec.size_among([prepared])
            return among(prepared)

        found: Iterator[float] = iter(
            Parallel(n_jobs=self.jobs, prefer="threads")(
                delayed(size)(self.graph.weights[name], plan) for name, asked in candidates.items() for plan in asked
            )
        )
        return {name: [next(found) for _ in asked] for name, asked in candidates.items()}

    def _smaller(self, group: Group, prepared: Sequence[Any], sizes: StreamEstimate | None = None) -> _Sized | None:
        """Return a codec that takes fewer bytes, and its sizes; a seed may have a few streams of it."""
        if group.part >= ADAPTIVE_STREAMS_MAX:
            return None
        return smaller(group.codec, prepared, sizes, self._trained)

    def _known(self, group: Group, plans: Plans) -> _Sized | None:
        planned, sized = self._sizes.get(group.place, (None, None))
        return sized if planned == group.planned(plans) else None

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


_Sized = tuple[Codec[Any, Any], StreamEstimate]
"""The codec that writes a stream, and its sizes."""
_Place = tuple[str, str, int]
"""Key under which the sizes of a stream are kept, see `Group.place`."""


def encode(graph: Graph, plans: Plans, *, jobs: int = 2, progress: Progress | None = None) -> list[CodedStream]:
    """Code a graph's weights once, and keep nothing."""
    return StreamEncoder(graph, jobs, keep=False).encode(plans, progress)


def restored(weight: Weight, plan: Plan) -> Any:
    """Compute a weight as a device will have it, in the layout of `Weight.data`, without coding it."""
    return codec_of(plan).restore(weight, plan)


def order_of(streams: Sequence[CodedStream | EstimatedStream]) -> list[str]:
    """List the weights in the order of the weights file."""
    return [name for stream in streams for name in stream.names]


def runs(weights: Sequence[Weight], plans: Plans) -> Iterator[Group]:
    """Group weights that share a stream and follow each other."""
    parts: Counter[tuple[str, str]] = Counter()
    for _, following in groupby(weights, lambda weight: _kind(weight, plans)):
        for group in groups(following, plans):
            kind = group.codec.name, group.codec.stream_key(group.weights[0])
            yield replace(group, part=parts[kind])
            parts[kind] += 1


def _kind(weight: Weight, plans: Plans) -> tuple[str, str]:
    codec = codec_of(plans[weight.name])
    return codec.name, codec.stream_key(weight)


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
        sides = count = part = 0
        for weight in members:
            own = codec.sides(weight)
            if group and (sides + own > codec.sides_max or count + weight.count > STREAM_SYMBOLS_MAX):
                yield Group(codec, tuple(group), part)
                group, sides, count, part = [], 0, 0, part + 1
            group.append(weight)
            sides, count = sides + own, count + weight.count
        yield Group(codec, tuple(group), part)
