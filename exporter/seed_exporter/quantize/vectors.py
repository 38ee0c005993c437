"""Codes the vectors of a model in which they weigh much: of several ways, the one with the least error at the size.

Where matrices carry the size, vectors take few bytes and are kept nearly whole. In a small model they may take a third
of the seed, and what a finer vector costs is missing in the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.model import Graph
from seed_exporter.quantize import allocate

PlansAt = Callable[[float], dict[str, Plan]]
"""Plans all weights at a coarseness."""

MANTISSA_BITS: Final = (4, 7, 10)
"""Mantissa bits that are tried of vectors as floats."""
_UNIT_SHARES: Final = (1.0, 1 / 4, 1 / 16)
"""Steps that are tried of vectors on grids, as shares of their unit steps: they share the matrices' stream then."""


def codings(graph: Graph, units: Mapping[str, float], vectors: Mapping[str, float]) -> Iterator[PlansAt]:
    """Yield ways to code a graph's vectors beside its matrices.

    Args:
        graph: the weights.
        units: unit steps of the matrices.
        vectors: unit steps of the vectors.
    """
    for bits in MANTISSA_BITS:
        yield partial(allocate.uniform, graph, units, mantissa_bits=bits)
        yield partial(_uniform_packed, graph, units, mantissa_bits=bits)
    for share in _UNIT_SHARES:
        steps = dict(units) | {name: share * unit for name, unit in vectors.items()}
        yield partial(allocate.uniform, graph, steps, mantissa_bits=allocate.VECTOR_BITS[-1])


def _uniform_packed(
    graph: Graph, units: Mapping[str, float], coarseness: float, *, mantissa_bits: int
) -> dict[str, Plan]:
    """Plan as `allocate.uniform`, with vectors packed as bytes: a few floats take less than tables."""
    plans = allocate.uniform(graph, units, coarseness, mantissa_bits)
    return {name: RawPlan(plan.mantissa_bits) if isinstance(plan, SplitPlan) else plan for name, plan in plans.items()}
