"""A seed in memory, before it is a file: its size, its assembled model, its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO

from seed_exporter.build.base_model import BaseModel
from seed_exporter.build.streams import CodedStream, EstimatedStream, Plans, StreamEncoder, order_of
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import Skeleton, SkeletonBuilder, builder_for
from seed_exporter.training import training_part
from seed_runtime.assembly.assemble import decode_streams, working_bytes
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.format.header import Header, Hole, ModelInfo, Part, Stream, WeightsInfo
from seed_runtime.format.parts import KINDS as PART_KINDS
from seed_runtime.format.parts import PROCESSING, TRAINING
from seed_runtime.format.sections.holes import name_digest
from seed_runtime.format.sections.streams import CHUNK_DIGEST_BYTES
from seed_runtime.format.writer import front, stream_of, write_into, write_seed
from seed_runtime.skeletons import KINDS


@dataclass(frozen=True)
class SeedDraft:
    """All of a seed's bytes but the file. The header's digest of the weights is right once `assemble` has run."""

    header: Header
    skeleton: Skeleton
    parts: Sequence[bytes]
    streams: Sequence[CodedStream]
    base: BaseModel | None = None
    """The seed that this one is assembled on top of; None for a whole seed."""
    shares: bool = False
    """Whether parts and holes are the base's, and left out."""

    @property
    def written(self) -> Header:
        """The header as it stands in the file."""
        return replace(self.header, parts=(), holes=()) if self.shares else self.header

    @property
    def size(self) -> int:
        """Size of the whole file [B]."""
        return len(front(self.written)) + self.written.body_size

    def assemble(self, folder: Path) -> SeedDraft:
        """Write the model as a device will have it, with the runtime's own decoder.

        Args:
            folder: exists; older files of the same names are replaced.

        Returns:
            The same draft with the digest of the weights.
        """
        base = None if self.base is None else self.base.weights(self.header.holes, shared=self.shares)
        with KINDS[self.skeleton.kind].layout.begin(folder, self.skeleton.data) as output:
            digest = decode_streams(
                self.header,
                lambda index, _: iter([memoryview(chunk) for chunk in self.streams[index].chunks]),
                output.write,
                skip=output.skip,
                base=base,
            )
        return replace(self, header=replace(self.header, weights=replace(self.header.weights, digest=digest)))

    def write(self, path: Path) -> int:
        """Write the file in one step; return its size [B]."""
        return write_seed(path, self.written, self._parts(), self._chunks())

    def write_into(self, file: IO[bytes]) -> int:
        """Write the same bytes into an open file; return how many."""
        return write_into(file, self.written, self._parts(), self._chunks())

    def _parts(self) -> Sequence[bytes]:
        return () if self.shares else self.parts

    def _chunks(self) -> Iterator[bytes]:
        return (chunk for stream in self.streams for chunk in stream.chunks)


def build(
    graph: Graph,
    streams: Sequence[CodedStream],
    model: ModelInfo,
    skeletons: SkeletonBuilder | None = None,
    base: BaseModel | None = None,
) -> SeedDraft:
    """Put streams and skeleton together, without golden sample and footprint.

    Args:
        graph: the weights' graph.
        streams: of all weights.
        model: the header's section MODEL.
        skeletons: of the same graph, for those who build many seeds of it.
        base: what streams of differences refer to.
    """
    order = order_of(streams)
    skeleton = (skeletons or builder_for(graph)).build(order)
    parts = _parts(graph, skeleton, order)
    records, first = [], 0
    for stream in streams:
        records.append(stream_of(stream.codec.number, first, len(stream.names), stream.chunks))
        first += len(stream.names)
    header = _header(skeleton, [part for part, _ in parts], model, records)
    shares = False
    if base is not None:
        header = replace(header, base=base.info)
        shares = base.shares(header.holes, header.parts[1:], skeleton.data)
    return SeedDraft(header, skeleton, [data for _, data in parts], streams, base, shares)


def build_in_order(
    encoder: StreamEncoder,
    plans: Plans,
    model: ModelInfo,
    skeletons: SkeletonBuilder,
    base: BaseModel | None,
    progress: Callable[[int], None] | None = None,
) -> SeedDraft:
    """Code all weights and put them together: in the order of the base's, where that makes both graphs the same one."""
    graph, order = encoder.graph, None if base is None else base.order_of(encoder.graph)
    if base is not None and order is not None and not _shares(graph, order, skeletons, base):
        order = None
    return build(graph, encoder.encode(plans, progress, order=order), model, skeletons, base)


def _shares(graph: Graph, order: Sequence[str], skeletons: SkeletonBuilder, base: BaseModel) -> bool:
    """Return whether a seed of this order of the weights has the base's graph and holes. Nothing is coded."""
    skeleton = skeletons.build(order)
    others = [part for part, _ in _parts(graph, skeleton, order)[1:]]
    return base.shares(_holes(skeleton), others, skeleton.data)


def estimate_size(
    graph: Graph, streams: Sequence[EstimatedStream], model: ModelInfo, skeletons: SkeletonBuilder | None = None
) -> int:
    """Compute the size that `build` would give, from the sizes of the streams [B]. Nothing is coded."""
    order = order_of(streams)
    skeleton = (skeletons or builder_for(graph)).build(order)
    parts = [part for part, _ in _parts(graph, skeleton, order)]
    records, first = [], 0
    for stream in streams:
        sizes = stream.sizes.chunks
        digests = bytes(CHUNK_DIGEST_BYTES * len(sizes))
        records.append(Stream(stream.codec.number, first, len(stream.names), sizes, digests))
        first += len(stream.names)
    header = _header(skeleton, parts, model, records)
    return len(front(header)) + header.body_size


def _parts(graph: Graph, skeleton: Skeleton, order: Sequence[str]) -> list[tuple[Part, bytes]]:
    """Return the parts of a seed, each with its packed bytes."""

    def part(kind: int, carried: bytes, raw_size: int, names: str | None = None) -> tuple[Part, bytes]:
        packing, data = _packed(carried)
        return Part(kind, packing, raw_size, len(data), hashlib.sha256(data).digest(), names), data

    names = None if PART_KINDS[skeleton.kind].tail is None else skeleton.names
    parts = [part(skeleton.kind, skeleton.carried, len(skeleton.data), names)]
    if graph.trains:
        added = training_part(graph, order)
        parts.append(part(TRAINING.number, added, len(added)))
    if graph.processing:
        parts.append(part(PROCESSING.number, graph.processing, len(graph.processing)))
    return parts


def _header(skeleton: Skeleton, parts: Sequence[Part], model: ModelInfo, streams: Sequence[Stream]) -> Header:
    header = Header(
        model=model,
        weights=WeightsInfo(skeleton.weights_size, bytes(32)),
        parts=tuple(parts),
        holes=_holes(skeleton),
        streams=tuple(streams),
    )
    return replace(header, weights=replace(header.weights, working_bytes=working_bytes(header)))


def _holes(skeleton: Skeleton) -> tuple[Hole, ...]:
    return tuple(Hole(hole.dtype, hole.dims, hole.skip, hole.offset, name_digest(hole.name)) for hole in skeleton.holes)


@lru_cache(maxsize=8)
def _packed(data: bytes) -> tuple[int, bytes]:
    """Pack a part's bytes; a search asks for the same ones many times."""
    return pack(data)
