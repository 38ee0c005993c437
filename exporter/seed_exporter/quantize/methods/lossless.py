"""`lossless`: every bit of every weight, in whichever codec takes fewer bytes for it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from seed_exporter.build.streams import encode
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import Coding
from seed_exporter.quantize.methods.evaluator import Choice, Trial
from seed_runtime.codecs.encode import raw

_REPEATS: Final = 0.75
"""Deflate brings trained floats to 90 % of their bytes; what it brings below this has repetitions, which LZMA finds."""
_TRIED_MAX: Final = 1 << 18
"""Bytes of a weight that both codecs are tried on: LZMA takes seconds a MiB."""


def choose(trial: Trial, alive: Callable[[], None]) -> Choice:
    """`split`, which knows numbers, or `raw`, which finds repetitions such as a filter bank's."""
    codings = allocate.lossless(trial.graph)
    repeated = {}
    for name, weight in trial.graph.weights.items():
        alive()
        if codings[name].codec == "split" and _is_repeated(trial.graph, weight, codings[name]):
            repeated[name] = Coding("raw")
    # Alone, each of them was smaller; together they share the tables of `split` no longer.
    if repeated and trial.size_of({**codings, **repeated}) < trial.size_of(codings):
        codings |= repeated
    return Choice(codings)


def _is_repeated(graph: Graph, weight: Weight, coding: Coding) -> bool:
    if weight.size > _TRIED_MAX:
        return False
    data = weight.data.tobytes()
    if len(zlib.compress(data, 1)) > _REPEATS * len(data):
        return False
    packed = sum(map(len, raw.encode(data, max(1, weight.dtype.bits // 8), thorough=True)))
    (split,) = encode(Graph(graph.model, {weight.name: weight}), {weight.name: coding}, sizes_only=True)
    return packed < split.size
