"""`--method grid`, the default: matrices on grids as fine as the size allows, or factors where these are smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

import numpy as np

from seed_exporter.build.streams import restored
from seed_exporter.calibrate import WEIGHT_SCALES
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import MANTISSA_BITS, with_mantissa
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.kinds import Kind, fp32_bytes, kind_of
from seed_exporter.graph.model import Weight
from seed_exporter.quantize import allocate, lowrank, vectors
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.methods.base import Alive, Choice, Method
from seed_exporter.quantize.methods.evaluator import Evaluator
from seed_exporter.quantize.rate import RateModel
from seed_exporter.quantize.size_search import Found, fit
from seed_exporter.quantize.steps import unit_steps
from seed_exporter.quantize.vectors import PlansAt

DEFAULT_RATIO: Final = 4.6
"""Ratio against fp32 that no public model's task score notices (docs/benchmarks.md)."""
LEAST_RATIO: Final = 4.05
"""Ratio against fp32 that the default keeps where anything can be quantized."""
LOSSLESS_SHARE: Final = 0.5
"""Share of the source's bytes above which a size may leave room for every bit: random fp32 takes .84 of them, ternary
weights less."""
LOSSLESS_TRIED: Final = 1 << 20
"""Size of a model up to which it is always tried whether every bit fits: it takes a tenth of a second [B]."""
VECTOR_SHARE: Final = 0.1
"""Largest share of the output error that rounding vectors may add: they take few bytes."""
VECTORS_HEAVY: Final = 1 / 16
"""Share of the seed above which vectors don't take few bytes, and their coding is chosen by trying."""
BITS_LEAST: Final = 2.0
"""Bits for each weight of a matrix below which the default gives up LEAST_RATIO: there a third of a weight is lost."""

_TABLE_BYTES: Final = 64
"""Size of a probability table, which a few hundred weights notice [B]."""

_Fit = Callable[..., Found]
"""Finds the coarseness at which plans keep the goal."""


def choose(evaluator: Evaluator, alive: Alive) -> Choice:
    """Find the finest coarseness that keeps the goal, and the coding of vectors by what it does to the outputs."""
    graph = evaluator.graph
    scales = evaluator.statistics[WEIGHT_SCALES]
    units, vector_units = unit_steps(graph, scales), unit_steps(graph, scales, Kind.VECTOR)
    if not units:
        # A model without matrices is made of its vectors.
        units, vector_units = vector_units, {}
    model = RateModel(graph, units)
    if not model.elements:
        plans = allocate.uniform(graph, units, 1.0, VECTOR_BITS[-1])
        return Choice(plans, evaluator.goal is None or evaluator.size_of(plans) <= evaluator.goal)

    def with_vectors(bits: int) -> PlansAt:
        return lambda coarseness: allocate.uniform(graph, units, coarseness, bits)

    first = with_vectors(VECTOR_BITS[1])
    goal = evaluator.goal if evaluator.goal is not None else _default_goal(evaluator, model, with_vectors)
    if goal > LOSSLESS_SHARE * evaluator.source_bytes or evaluator.source_bytes <= LOSSLESS_TRIED:
        exact = allocate.lossless(graph)
        if evaluator.size_of(exact) <= goal:
            return Choice(exact)

    def fitted(plans_at: PlansAt, start: float | None = None) -> Found:
        def size_at(coarseness: float) -> int:
            alive()
            return evaluator.size_of(plans_at(coarseness))

        return fit(model, goal, size_at, start)

    streams = evaluator.encoder.estimate(first(1.0), names=list(vector_units))
    if evaluator.measures_errors and sum(stream.sizes.size for stream in streams) > VECTORS_HEAVY * goal:
        plans_at, found = _least_error(evaluator, vectors.codings(graph, units, vector_units), fitted)
    else:
        plans_at, found = first, fitted(first)
        bits = _vector_bits(evaluator, with_vectors(VECTOR_BITS[-1])(found.coarseness))
        if bits != VECTOR_BITS[1]:
            plans_at = with_vectors(bits)
            if _must_fit(evaluator, plans_at(found.coarseness)):
                found = fitted(plans_at, found.coarseness)
    plans = plans_at(found.coarseness)

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
        return lowrank.replace_where_cheaper(graph, plans_at(coarseness), names, evaluator.encoder.jobs)

    found = fitted(with_factors, found.coarseness)
    return Choice(with_factors(found.coarseness), found.met)


METHOD: Final = Method(choose, needs=frozenset({WEIGHT_SCALES}), prepare=fold_batch_norms, has_default=True)


def _least_error(evaluator: Evaluator, codings: Iterable[PlansAt], fitted: _Fit) -> tuple[PlansAt, Found]:
    """Fit each coding of vectors to the goal, and choose the one with the least output error of those that keep it."""

    def rank(tried: tuple[PlansAt, Found]) -> tuple[bool, float]:
        plans_at, found = tried
        plans = plans_at(found.coarseness)
        error = evaluator.error_with(lambda weight: restored(weight, plans[weight.name]))
        return not found.met, error if np.isfinite(error) else np.inf

    return min(((plans_at, fitted(plans_at)) for plans_at in codings), key=rank)


def _must_fit(evaluator: Evaluator, plans: dict[str, Plan]) -> bool:
    """Return whether a search is worth its time: for a goal always, by default if the seed would miss LEAST_RATIO."""
    return evaluator.goal is not None or evaluator.size_of(plans) > fp32_bytes(evaluator.graph) / LEAST_RATIO


def _default_goal(evaluator: Evaluator, model: RateModel, with_vectors: Callable[[int], PlansAt]) -> int:
    """Compute the default's size: matrices at DEFAULT_RATIO against fp32, and the rest beside them where it is large.

    A small model's graph and vectors weigh more; it still gets LEAST_RATIO in all, unless nearly nothing would be left
    for the matrices.
    """
    matrices = int(model.elements * 4 / DEFAULT_RATIO)
    kept = evaluator.kept_bytes(with_vectors(VECTOR_BITS[1])(1.0))
    goal = matrices if kept * 8 < matrices else int(kept + 0.95 * matrices) + _TABLE_BYTES
    least = int(fp32_bytes(evaluator.graph) / LEAST_RATIO)
    if goal <= least:
        return goal
    room = least - evaluator.kept_bytes(with_vectors(vectors.MANTISSA_BITS[0])(1.0))
    return least if 8 * (room - _TABLE_BYTES) >= BITS_LEAST * model.elements else goal


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
