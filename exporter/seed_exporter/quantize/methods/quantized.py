"""`--method grid`, the default: matrices on grids as fine as the size allows, or factors where these are smaller."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from seed_exporter.build.streams import restored
from seed_exporter.calibrate import WEIGHT_SCALES
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import MANTISSA_BITS, with_mantissa
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.graph.model import Weight
from seed_exporter.quantize import allocate, lowrank
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.methods.base import Alive, Choice, Method
from seed_exporter.quantize.methods.evaluator import Evaluator
from seed_exporter.quantize.rate import RateModel
from seed_exporter.quantize.size_search import Found, fit
from seed_exporter.quantize.steps import unit_steps

DEFAULT_RATIO: Final = 4.6
"""Ratio against fp32 that no public model's task score notices (docs/benchmarks.md)."""
LEAST_RATIO: Final = 4.05
"""Ratio against fp32 that the default keeps where anything can be quantized."""
LOSSLESS_SHARE: Final = 0.5
"""Share of the source's bytes above which a size may leave room for every bit: random fp32 takes .84 of them, ternary
weights less."""
VECTOR_SHARE: Final = 0.1
"""Largest share of the output error that rounding vectors may add: they take few bytes."""

_PlansAt = Callable[[float], dict[str, Plan]]
"""Plans all weights at a coarseness."""


def choose(evaluator: Evaluator, alive: Alive) -> Choice:
    """Find the finest coarseness that keeps the goal, then the precision of vectors by what it does to the outputs."""
    graph = evaluator.graph
    units = unit_steps(graph, evaluator.statistics[WEIGHT_SCALES])
    model = RateModel(graph, units)
    if not model.elements:
        plans = allocate.uniform(graph, units, 1.0, VECTOR_BITS[-1])
        return Choice(plans, evaluator.goal is None or evaluator.size_of(plans) <= evaluator.goal)

    def with_vectors(bits: int) -> _PlansAt:
        return lambda coarseness: allocate.uniform(graph, units, coarseness, bits)

    first = with_vectors(VECTOR_BITS[1])
    goal = evaluator.goal if evaluator.goal is not None else _default_goal(evaluator, model, first(1.0))
    if goal > LOSSLESS_SHARE * evaluator.source_bytes:
        exact = allocate.lossless(graph)
        if evaluator.size_of(exact) <= goal:
            return Choice(exact)

    def fitted(plans_at: _PlansAt, start: float | None = None) -> Found:
        def size_at(coarseness: float) -> int:
            alive()
            return evaluator.size_of(plans_at(coarseness))

        return fit(model, goal, size_at, start)

    found = fitted(first)
    bits = _vector_bits(evaluator, with_vectors(VECTOR_BITS[-1])(found.coarseness))
    if bits != VECTOR_BITS[1] and _must_fit(evaluator, with_vectors(bits)(found.coarseness)):
        found = fitted(with_vectors(bits), found.coarseness)
    plans = with_vectors(bits)(found.coarseness)

    names = lowrank.candidates(graph, plans)
    alive()
    factored = lowrank.replace_where_cheaper(graph, plans, names, evaluator.encoder.jobs)
    names = [name for name in names if isinstance(factored[name], LowRankPlan)]
    # One more stream has tables and lanes of its own.
    if not names or evaluator.size_of(plans) <= evaluator.size_of(factored):
        return Choice(plans, found.met or evaluator.goal is None)
    if evaluator.goal is None:
        return Choice(factored)

    # What factors save buys finer steps.
    @cache
    def with_factors(coarseness: float) -> dict[str, Plan]:
        plans = allocate.uniform(graph, units, coarseness, bits)
        return lowrank.replace_where_cheaper(graph, plans, names, evaluator.encoder.jobs)

    found = fitted(with_factors, found.coarseness)
    return Choice(with_factors(found.coarseness), found.met)


METHOD: Final = Method(choose, needs=frozenset({WEIGHT_SCALES}), has_default=True)


def _must_fit(evaluator: Evaluator, plans: dict[str, Plan]) -> bool:
    """Return whether a search is worth its time: for a goal always, by default if the seed would miss LEAST_RATIO."""
    return evaluator.goal is not None or evaluator.size_of(plans) > evaluator.fp32_bytes / LEAST_RATIO


def _default_goal(evaluator: Evaluator, model: RateModel, plans: dict[str, Plan]) -> int:
    """Compute the default's size: matrices at DEFAULT_RATIO against fp32, and the rest beside them where it is large.

    A small model's graph and vectors weigh more; it still gets LEAST_RATIO in all, unless it was small already.
    """
    matrices = int(model.elements * 4 / DEFAULT_RATIO)
    kept = evaluator.kept_bytes(plans)
    goal = matrices if kept * 8 < matrices else int(kept + 0.95 * matrices)
    least = int(evaluator.fp32_bytes / LEAST_RATIO)
    return least if least < goal and kept < 0.6 * least else goal


def _vector_bits(evaluator: Evaluator, plans: dict[str, Plan]) -> int:
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
        return with_mantissa(weight.data, MANTISSA_BITS[weight.dtype.name], bits)

    for bits in VECTOR_BITS[:-1]:
        if evaluator.keeps(lambda weight: rounded(weight, bits), allowed):  # noqa: B023  called at once
            return bits
    return VECTOR_BITS[-1]
