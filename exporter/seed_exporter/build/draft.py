"""Streams and skeleton as one seed, in memory: its size, its assembled model, its file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO

from seed_exporter.build.streams import CodedStream, order_of
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import Skeleton, SkeletonBuilder, builder_for
from seed_runtime.assembly.assemble import decode_streams, working_bytes
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.format.header import Header, Hole, ModelInfo, Part, WeightsInfo
from seed_runtime.format.writer import front, stream_of, write_into, write_seed
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE

MIN_RUNTIME = (0, 1, 0)


@dataclass(frozen=True)
class Seed:
    """All of a seed's bytes but the file. The header's digest of the weights is right once `assemble` has run."""

    header: Header
    skeleton: Skeleton
    part: bytes
    streams: Sequence[CodedStream]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(front(self.header)) + self.header.body_size

    def assemble(self, folder: Path) -> Seed:
        """Write the model as a device will have it, with the runtime's own decoder, and note the weights' digest."""
        (folder / MODEL_FILE).write_bytes(self.skeleton.data)
        with (folder / WEIGHTS_FILE).open("wb") as file:
            digest = decode_streams(
                self.header,
                lambda index, _: iter([memoryview(chunk) for chunk in self.streams[index].chunks]),
                file.write,
            )
        return replace(self, header=replace(self.header, weights=replace(self.header.weights, digest=digest)))

    def write(self, path: Path) -> int:
        """The file, in one step; its size [B]."""
        return write_seed(path, self.header, [self.part], self._chunks())

    def write_into(self, file: IO[bytes]) -> int:
        """The same bytes, into an open file; how many."""
        return write_into(file, self.header, [self.part], self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        return (chunk for stream in self.streams for chunk in stream.chunks)


def build(
    graph: Graph, streams: Sequence[CodedStream], model: ModelInfo, skeletons: SkeletonBuilder | None = None
) -> Seed:
    """A seed without golden sample and footprint, whose weights' digest isn't known yet.

    `skeletons`: of the same graph, for those who build many seeds of it.
    """
    built = (skeletons or builder_for(graph)).build(order_of(list(streams)))
    packing, part = _packed(built.data)
    holes = tuple(Hole(hole.dtype, hole.dims, hole.skip, hole.offset) for hole in built.holes)
    records, first = [], 0
    for stream in streams:
        records.append(stream_of(stream.number, first, len(stream.names), stream.chunks))
        first += len(stream.names)
    header = Header(
        model=model,
        weights=WeightsInfo(built.weights_size, bytes(32)),
        parts=(Part(built.kind, packing, len(built.data), len(part), hashlib.sha256(part).digest()),),
        holes=holes,
        streams=tuple(records),
    )
    header = replace(header, weights=replace(header.weights, working_bytes=working_bytes(header)))
    return Seed(header, built, part, streams)


@lru_cache(maxsize=2)
def _packed(data: bytes) -> tuple[int, bytes]:
    """A search builds the same skeleton many times."""
    return pack(data)
