"""Codes the vectors of a model in which they weigh much: of several ways, the one with the least error at the size.

Where matrices carry the size, vectors take few bytes and are kept nearly whole. In a small model they may take a third
of the seed, and what a finer vector costs is missing in the matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from seed_exporter.build.streams import Plans, restored
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import MANTISSA_BITS as TYPE_BITS
from seed_exporter.codecs.exact import with_mantissa
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.rounding_plans import RoundedPlans
from seed_exporter.quantize.search import PlansAt, Search
from seed_exporter.quantize.size_search import OperatingPoint

MANTISSA_BITS: Final = (4, 7, 10)
"""Mantissa bits that are tried of vectors as floats."""
VECTOR_SHARE: Final = 0.1
"""Largest share of the output error that rounding vectors may add: they take few bytes."""
VECTORS_HEAVY: Final = 1 / 16
"""Share of the seed above which vectors don't take few bytes, and their coding is chosen by trying."""
_UNIT_SHARES: Final = (1.0, 1 / 4, 1 / 16)
"""Steps that are tried of vectors on grids, as shares of their unit steps: they share the matrices' stream then."""

_Rank = tuple[bool, bool, float]
"""Order of codings: whether they miss the goal, whether the size keeps them from the line, and their error or size."""


def are_heavy(evaluator: Evaluator, plans: Plans, names: Sequence[str], largest: int) -> bool:
    """Return whether vectors take so much of a seed that their coding is worth trying."""
    if not evaluator.measures_errors:
        return False
    streams = evaluator.encoder.estimate(plans, names=names)
    return sum(stream.sizes.size for stream in streams) > VECTORS_HEAVY * largest


def error_of(evaluator: Evaluator, plans: Plans) -> float:
    """Compute the worst output's relative error with these plans; infinite where it is none."""
    error = evaluator.error_with(lambda weight: restored(weight, plans[weight.name]))
    return error if np.isfinite(error) else np.inf


def fewest_bits(evaluator: Evaluator, plans: Plans) -> int:
    """Choose the mantissa bits of vectors: the fewest that add little to the error that the matrices make.

    The middle choice where noise decides all outputs.

    Args:
        evaluator: runs the model.
        plans: of all weights, with whole vectors.
    """
    if not evaluator.measures_errors:
        return VECTOR_BITS[1]
    allowed = VECTOR_SHARE * evaluator.error_with(lambda weight: restored(weight, plans[weight.name]))

    def rounded(weight: Weight, bits: int) -> np.ndarray:
        if plans[weight.name].adjustable or kind_of(weight) is Kind.EXACT:
            return weight.data
        return with_mantissa(weight.data, TYPE_BITS[weight.dtype.name], bits)

    for bits in VECTOR_BITS[:-1]:
        if evaluator.keeps(lambda weight: rounded(weight, bits), allowed):  # noqa: B023  called at once
            return bits
    return VECTOR_BITS[-1]


def best_coding(
    evaluator: Evaluator,
    search: Search,
    rounding: RoundedPlans,
    units: Mapping[str, float],
    vectors: Mapping[str, float],
    start: float | None,
) -> tuple[PlansAt, OperatingPoint]:
    """Choose how to code vectors beside matrices: the least error at a size, the least size at a quality.

    Each coding is fitted from the coarseness of the last. All precisions are tried: the error doesn't fall to one
    minimum. Of PP-OCR's classifier at one size it is .017, .017 and .004 with 4, 7 and 10 mantissa bits.

    Args:
        evaluator: runs the model.
        search: finds the coarseness of each coding.
        rounding: rounds the matrices.
        units: unit steps of the matrices.
        vectors: unit steps of the vectors.
        start: coarseness to begin with, where one is known.

    Returns:
        What plans all weights, not rounded yet, and the coarseness.
    """
    graph, fitted = evaluator.graph, list[tuple[_Rank, PlansAt, OperatingPoint]]()

    def as_floats(bits: int) -> PlansAt:
        # Both give the same outputs: the smaller one leaves more for the matrices.
        both = [partial(plan, graph, units, mantissa_bits=bits) for plan in (allocate.uniform, _uniform_packed)]
        return min(both, key=lambda unrounded_at: evaluator.size_of(unrounded_at(start or 1.0)))

    def on_grids(share: float) -> PlansAt:
        steps = dict(units) | {name: share * unit for name, unit in vectors.items()}
        return partial(allocate.uniform, graph, steps, mantissa_bits=allocate.VECTOR_BITS[-1])

    for unrounded_at in (*map(as_floats, MANTISSA_BITS), *map(on_grids, _UNIT_SHARES)):
        plans_at = rounding.at(unrounded_at)
        point = search.fit(plans_at, start)
        start = point.coarseness
        fitted.append((_rank(evaluator, plans_at, point), unrounded_at, point))
    return min(fitted, key=lambda one: one[0])[1:]


def _rank(evaluator: Evaluator, plans_at: PlansAt, point: OperatingPoint) -> _Rank:
    """Order codings that were fitted, the best first: the size at a line, the error at a size.

    Where a size isn't kept, the smallest is the best, which is said to be the smallest possible.
    """
    plans = plans_at(point.coarseness)
    by_line = evaluator.line_to_keep is not None and not point.capped
    by_size = by_line or not point.met
    merit = float(evaluator.size_of(plans)) if by_size else error_of(evaluator, plans)
    return not point.met, point.capped, merit


def _uniform_packed(
    graph: Graph, units: Mapping[str, float], coarseness: float, *, mantissa_bits: int
) -> dict[str, Plan]:
    """Plan as `allocate.uniform`, with vectors packed as bytes: a few floats take less than tables."""
    plans = allocate.uniform(graph, units, coarseness, mantissa_bits)
    return {name: RawPlan(plan.mantissa_bits) if isinstance(plan, SplitPlan) else plan for name, plan in plans.items()}
