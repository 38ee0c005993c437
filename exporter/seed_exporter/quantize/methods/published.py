"""`--method moments`: the published method, for comparison; as many components as the size allows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from seed_exporter.calibrate import SPECTRA, WEIGHT_SCALES
from seed_exporter.codecs import moments
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.moments import MomentsPlan, Spectrum
from seed_exporter.graph.matrix import coded_view
from seed_exporter.graph.model import Graph
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.default_size import DEFAULT_RATIO
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.methods.base import Alive, Choice, Method
from seed_exporter.quantize.steps import unit_steps

_TRIES: Final = 6
"""Most sizes that are computed."""
_CLOSE: Final = 0.99
"""Share of the goal from which on a seed is large enough."""


def choose(evaluator: Evaluator, alive: Alive) -> Choice:
    """Find the most components, shared out by the matrices' sizes, whose seed keeps the goal."""
    graph = evaluator.graph
    goal = evaluator.goal or int(evaluator.source_bytes / DEFAULT_RATIO)
    units = unit_steps(graph, evaluator.statistics[WEIGHT_SCALES])
    spectra = evaluator.statistics[SPECTRA]

    def plans_at(size: int) -> dict[str, Plan]:
        return plans_of(graph, units, size, VECTOR_BITS[1], spectra)

    @cache
    def size_at(size: int) -> int:
        alive()
        return evaluator.size_of(plans_at(size))

    fixed = size_at(0)
    if not units or fixed > goal:
        return Choice(plans_at(0), evaluator.goal is None or fixed <= goal)
    most = plans_at(1 << 62)
    # Numbers are compressed, so that more of them fit than their own bytes say.
    room, fits, exceeds = goal - fixed, 0, 0
    for _ in range(_TRIES):
        size = size_at(room)
        if size <= goal:
            fits = max(fits, room)
        else:
            exceeds = min(exceeds or room, room)
        if goal * _CLOSE <= size_at(fits) or plans_at(fits) == most:
            break
        wanted = int(room * (goal * (1 + _CLOSE) / 2 - fixed) / max(1, size - fixed))
        if plans_at(wanted) == plans_at(room) or (exceeds and not fits < wanted < exceeds):
            wanted = (fits + exceeds) // 2 if exceeds else 2 * room
        if wanted in (fits, exceeds):
            break
        room = wanted
    return Choice(plans_at(fits))


METHOD: Final = Method(choose, needs=lambda effort: frozenset({WEIGHT_SCALES, SPECTRA}))


def plans_of(
    graph: Graph,
    units: Mapping[str, float],
    size: int,
    mantissa_bits: int,
    spectra: Mapping[str, Spectrum] | None = None,
) -> dict[str, Plan]:
    """Plan each matrix with as many principal components as its share of `size` holds.

    Args:
        graph: the weights.
        units: unit steps of the matrices that are reduced; the others are coded as the default codes them.
        size: bytes of all components before they are compressed.
        mantissa_bits: mantissa bits that are kept of vectors.
        spectra: spectra of the matrices, where they are known.
    """
    plans = allocate.uniform(graph, units, 1.0, mantissa_bits)
    total = sum(graph.weights[name].count for name in units)
    for name in units:
        rows, cols = coded_view(graph.weights[name])
        count = moments.components_for(rows, cols, size * rows * cols // total)
        plans[name] = MomentsPlan(count, spectra[name] if spectra else None)
    return plans
