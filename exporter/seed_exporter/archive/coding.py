"""Codes a checkpoint without loss: whole, or as what differs from another one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_exporter.archive.tensor_names import with_names
from seed_exporter.archive.weights import writer
from seed_exporter.build import draft
from seed_exporter.build.base_model import BaseModel
from seed_exporter.build.draft import SeedDraft
from seed_exporter.build.streams import StreamEncoder, order_of
from seed_exporter.codecs import codec_of
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.delta import DeltaPlan
from seed_exporter.graph.matrix import fits_a_stream
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.against_base import count_modes, exact_change
from seed_exporter.skeletons import builder_for
from seed_runtime.assembly.assemble import decode_streams
from seed_runtime.codecs.delta import BITS_MAX
from seed_runtime.codecs.encode.delta import NO_CHANGE, size_of
from seed_runtime.errors import SeedError
from seed_runtime.format.header import ModelInfo
from seed_runtime.format.sections.model import FEATURE_LEVEL

_DOUBTFUL: Final = 0.6
"""Share of a tensor's bytes from which its difference is compared with the tensor coded anew."""
_OTHER_STREAM: Final = 64
"""Bytes that another stream costs at least [B]."""


def code(graph: Graph, name: str, number: int, base: BaseModel | None, jobs: int) -> tuple[SeedDraft, npt.NDArray[Any]]:
    """Return a seed of a checkpoint, and its weights as its decoder gives them, which are the checkpoint's.

    Args:
        graph: the checkpoint.
        name: of the checkpoint, the seed's model id.
        number: its place in the archive, the seed's model version.
        base: what it is coded against; None for a key seed. A checkpoint that shares nothing with it becomes one, too.
        jobs: threads.
    """
    graph = with_names(graph)
    model = ModelInfo(name, number, FEATURE_LEVEL, graph.parameters, graph.distinct_bytes)
    plans = allocate.lossless(graph) if base is None else _against(graph, base)
    encoder = StreamEncoder(graph, jobs, keep=False)
    base = base if any(count_modes(plans)) else None
    made = draft.build_in_order(encoder, plans, model, builder_for(graph), base)
    return _decoded(made, graph)


def change_of(graph: Graph, base: BaseModel) -> float:
    """Estimate what a checkpoint takes against a base, quickly: about the bits of all differences [bit].

    It tells bases apart; no size is meant by it.
    """
    total = 0.0
    for weight in graph.weights.values():
        values = base.values(weight)
        if values is None or weight.dtype.bits > BITS_MAX:
            total += 8 * weight.size
            continue
        bits = np.dtype(f"u{values.dtype.itemsize}")
        new, old = (
            np.ascontiguousarray(each).reshape(-1).view(bits).astype(np.int64) for each in (weight.data, values)
        )
        total += float(np.log2(1 + np.abs(new - old)).sum())
    return total


def _against(graph: Graph, base: BaseModel) -> dict[str, Plan]:
    return {name: _plan(weight, base) for name, weight in graph.weights.items()}


def _plan(weight: Weight, base: BaseModel) -> Plan:
    """Plan a weight as the base's, as what differs from it, or anew, whichever takes fewer bytes."""
    own, values = allocate.exact(weight), base.values(weight)
    if values is None:
        return own
    if values.tobytes() == weight.data.tobytes():
        return DeltaPlan(NO_CHANGE, values)
    if weight.dtype.bits > BITS_MAX or not fits_a_stream(weight):
        return own
    change = exact_change(weight, weight.data, values)
    size = size_of(change)
    if size > _DOUBTFUL * weight.size:
        codec = codec_of(own)
        if codec.estimate([codec.prepare(weight, own, 0)]).size + _OTHER_STREAM < size:
            return own
    return DeltaPlan(change, values)


def _decoded(made: SeedDraft, graph: Graph) -> tuple[SeedDraft, npt.NDArray[Any]]:
    """Decode a draft as a device does; compare it with the checkpoint; add the digest."""
    data = np.empty(sum(hole.size for hole in made.header.holes), np.uint8)
    base = None if made.base is None else made.base.weights(made.header.holes, shared=made.shares)
    digest = decode_streams(
        made.header,
        lambda index, _: iter([memoryview(chunk) for chunk in made.streams[index].chunks]),
        writer(data),
        skip=lambda size: None,
        base=base,
    )
    expected = hashlib.sha256()
    for name in order_of(made.streams):
        expected.update(np.ascontiguousarray(graph.weights[name].data).reshape(-1).view(np.uint8).data)
    if expected.digest() != hashlib.sha256(data.data).digest():
        raise SeedError(
            f"the seed of {made.header.model.model_id} gives other weights; report this with the checkpoint"
        )
    return replace(made, header=replace(made.header, weights=replace(made.header.weights, digest=digest))), data
