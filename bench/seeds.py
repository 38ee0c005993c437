"""Make seeds for benchmarks with the exporter's own parts: fixed steps, no search, no check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.peers import nncodec_qp
from seed_exporter.build import draft
from seed_exporter.build.streams import CodedStream, Plans, encode
from seed_exporter.calibrate.weight_scales import root_mean_square
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridCodec, GridPlan
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.graph.matrix import matrix_view
from seed_exporter.graph.model import Graph
from seed_exporter.peers.nncodec import step_of
from seed_exporter.quantize import allocate
from seed_runtime.assembly.assemble import decode_streams
from seed_runtime.format.header import ModelInfo
from seed_runtime.format.sections.model import FEATURE_LEVEL


@dataclass(frozen=True)
class Made:
    """A seed on the disk, and the streams in it."""

    path: Path
    header_digest: bytes
    streams: Sequence[CodedStream]
    plans: Plans

    @property
    def matrices(self) -> list[CodedStream]:
        return [stream for stream in self.streams if isinstance(stream.codec, GridCodec)]


def plans_at(graph: Graph, coarseness: float) -> dict[str, Plan]:
    """Plan every matrix at a step of about `coarseness` times its root mean square, everything else without loss.

    The step is the nearest that NNCodec has, so that both code the same integers.
    """
    plans: dict[str, Plan] = {}
    for name, weight in graph.weights.items():
        scale = root_mean_square(weight) if kind_of(weight) is Kind.MATRIX else 0
        step = step_of(nncodec_qp(coarseness * scale)) if scale else 0.0
        plans[name] = GridPlan(step) if scale else allocate.exact(weight)
    return plans


def make(graph: Graph, plans: Plans, path: Path, jobs: int = 2) -> Made:
    """Write a whole seed with correct digests, without golden sample and footprint."""
    streams = encode(graph, plans, jobs=jobs)
    return write(graph, streams, plans, path)


def write(graph: Graph, streams: Sequence[CodedStream], plans: Plans, path: Path) -> Made:
    seed = draft.build(graph, streams, model_of(path.stem, graph))
    digest = decode_streams(
        seed.header, lambda index, _: iter([memoryview(chunk) for chunk in streams[index].chunks]), lambda data: None
    )
    seed = replace(seed, header=replace(seed.header, weights=replace(seed.header.weights, digest=digest)))
    seed.write(path)
    return Made(path, digest, streams, plans)


def model_of(name: str, graph: Graph) -> ModelInfo:
    return ModelInfo(name, 1, FEATURE_LEVEL, graph.parameters, graph.distinct_bytes)


def dequantized(graph: Graph, plans: Plans) -> dict[str, np.ndarray]:
    """Return the matrices as a decoder gives them, `(rows, cols)` float32: exact multiples of their steps."""
    found = {}
    for name, weight in graph.weights.items():
        plan = plans[name]
        if isinstance(plan, GridPlan):
            found[name] = plan.quantize(weight).values().reshape(matrix_view(weight))
    return found


def bits_per_weight(streams: Sequence[CodedStream], weights: int) -> float:
    return 8 * sum(stream.size for stream in streams) / weights if weights else math.nan
