"""`--method grid`, the default: matrices on grids as coarse as the goal allows, or factors where these are smaller."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache, partial
from typing import Any, Final

from seed_exporter.calibrate import COVARIANCES, ROW_COUNTS, WEIGHT_SCALES, Statistic
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.kinds import Kind
from seed_exporter.quantize import allocate, distilled, lowrank, vectors
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.default_size import default_largest
from seed_exporter.quantize.effort import Effort
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.methods.base import Alive, Choice, Method
from seed_exporter.quantize.on_trellis import on_trellis
from seed_exporter.quantize.probe import units_by_damage
from seed_exporter.quantize.rate import RateModel
from seed_exporter.quantize.rounding_plans import RoundedPlans
from seed_exporter.quantize.search import PlansAt, Search
from seed_exporter.quantize.size_search import OperatingPoint
from seed_exporter.quantize.steps import unit_steps

LOSSLESS_SHARE: Final = 0.5
"""Share of the source's bytes above which a size may leave room for every bit: random fp32 takes .84 of them, ternary
weights less."""
LOSSLESS_TRIED: Final = 1 << 20
"""Size of a model up to which it is always tried whether every bit fits: it takes a tenth of a second [B]."""


def choose(evaluator: Evaluator, alive: Alive) -> Choice:
    """Choose unit steps by damage, the coarseness that keeps the goal, and the coding of vectors by the outputs."""
    graph = evaluator.graph
    evaluator.trail.begin()
    distilled.check(evaluator)
    alive()
    scales = evaluator.statistics[WEIGHT_SCALES]
    units, vector_units = unit_steps(graph, scales), unit_steps(graph, scales, Kind.VECTOR)
    if not units:
        # A model without matrices is made of its vectors.
        units, vector_units = vector_units, {}
    exact = allocate.lossless(graph)
    if not units:
        return Choice(exact, evaluator.goal is None or evaluator.size_of(exact) <= evaluator.goal)
    largest = evaluator.goal if evaluator.goal is not None else default_largest(evaluator, units)
    by_size = evaluator.line_to_keep is None
    if by_size and _may_keep_all(evaluator, largest) and evaluator.size_of(exact) <= largest:
        return Choice(exact)

    rounding = RoundedPlans(evaluator)
    kept = evaluator.kept_bytes(allocate.uniform(graph, units, 1.0, VECTOR_BITS[1]))
    search, start = Search(evaluator, RateModel(graph, units), largest, kept), None
    if evaluator.effort.probes and evaluator.measures_errors:
        plans_at = rounding.at(partial(allocate.uniform, graph, units, mantissa_bits=VECTOR_BITS[1]))
        start = search.roughly(plans_at)
        units = units_by_damage(evaluator, units, start, rounding)
        search = Search(evaluator, RateModel(graph, units), largest, kept)
        if by_size:
            start = None
    unrounded_at: PlansAt = partial(allocate.uniform, graph, units, mantissa_bits=VECTOR_BITS[1])
    first = rounding.at(unrounded_at)
    if vectors.are_heavy(evaluator, first(1.0), list(vector_units), largest):
        unrounded_at, point = vectors.best_coding(evaluator, search, rounding, units, vector_units, start)
    else:
        point = search.fit(first, start)
        whole = rounding.at(partial(allocate.uniform, graph, units, mantissa_bits=VECTOR_BITS[-1]))
        bits = vectors.fewest_bits(evaluator, whole(point.coarseness))
        if bits != VECTOR_BITS[1]:
            unrounded_at = partial(allocate.uniform, graph, units, mantissa_bits=bits)
            point = search.fit(rounding.at(unrounded_at), point.coarseness)
    factored, point = _factored(evaluator, search, rounding.at(unrounded_at), point)

    def rounded_at(trellis: Collection[str]) -> PlansAt:
        return _with_factors(evaluator, rounding.at(unrounded_at, trellis), factored)

    plain = plans = rounded_at(())(point.coarseness)
    met = point.met
    if met:
        plans, met = on_trellis(evaluator, search, rounding, unrounded_at, rounded_at, point)
        plans = distilled.distilled(evaluator, plain, plans, search.keeps)
    if by_size:
        return Choice(plans, met)
    if not met:
        best = evaluator.trail.best
        return Choice(exact) if search.keeps(exact) else Choice(best[0] if best else plans, False)
    # What is kept bit by bit is under any line.
    size = evaluator.size_of(plans)
    return Choice(exact if _may_keep_all(evaluator, size) and evaluator.size_of(exact) <= size else plans)


def needs(effort: Effort) -> frozenset[Statistic[Any]]:
    """Return the statistics that an effort reads."""
    wanted: set[Statistic[Any]] = {WEIGHT_SCALES}
    if effort.feedback:
        wanted.add(COVARIANCES)
    if effort.table_rows:
        wanted.add(ROW_COUNTS)
    return frozenset(wanted)


METHOD: Final = Method(
    choose, needs, prepare=fold_batch_norms, has_quality=True, has_default=True, tunes=True, heals=True
)


def _may_keep_all(evaluator: Evaluator, size: int) -> bool:
    """Return whether it is worth a try to keep every bit within `size` bytes."""
    return size > LOSSLESS_SHARE * evaluator.source_bytes or evaluator.source_bytes <= LOSSLESS_TRIED


def _factored(
    evaluator: Evaluator, search: Search, plans_at: PlansAt, point: OperatingPoint
) -> tuple[Sequence[str], OperatingPoint]:
    """Find matrices that are smaller as factors, and spend on finer steps what a size has left then.

    Returns:
        Their names, and the coarseness with them.
    """
    if not evaluator.effort.factors:
        return (), point
    graph, plans = evaluator.graph, plans_at(point.coarseness)
    candidates = lowrank.candidates(graph, plans)
    factored = lowrank.replace_where_cheaper(graph, plans, candidates, evaluator.encoder.jobs)
    names = [name for name in candidates if isinstance(factored[name], LowRankPlan)]
    # One more stream has tables and lanes of its own.
    if not names or evaluator.size_of(plans) <= evaluator.size_of(factored):
        return (), point
    if evaluator.goal is None:
        return names if search.replaces(factored, plans) else (), point
    return names, search.fit(_with_factors(evaluator, plans_at, names), point.coarseness)


def _with_factors(evaluator: Evaluator, plans_at: PlansAt, names: Sequence[str]) -> PlansAt:
    """Plan as another function does, with matrices of these names as factors where they are smaller."""

    @lru_cache(maxsize=2)
    def with_factors(coarseness: float) -> dict[str, Plan]:
        return lowrank.replace_where_cheaper(evaluator.graph, plans_at(coarseness), names, evaluator.encoder.jobs)

    return with_factors
