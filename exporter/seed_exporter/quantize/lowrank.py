"""Replaces grids by low-rank products where these take fewer bits at the same distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from joblib import Parallel, delayed

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.lowrank import LowRankPlan, rate_bits
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize.factorize import factorize
from seed_runtime.codecs.encode.grid import matrix_of
from seed_runtime.limits import SIDE_MAX

SIDE_MIN: Final = 16
"""Number of rows or columns below which factors can't win."""
PARTICIPATION_MAX: Final = 0.35
"""Largest participation ratio, as a share of the shorter side, at which factors are tried."""
GAIN: Final = 0.98
"""Largest share of a grid's bits that factors may take: a product is slower to decode, so it has to save 2 %."""


def candidates(graph: Graph, plans: Mapping[str, Plan]) -> list[str]:
    """List the matrices rounded to nearest of which few directions carry the energy.

    Integers that calibration or training found aren't replaced: what they lose isn't measured by the squared error.
    """
    return [
        name
        for name, plan in plans.items()
        if isinstance(plan, GridPlan) and plan.matrix is None and has_few_directions(graph.weights[name])
    ]


def replace_where_cheaper(graph: Graph, plans: Mapping[str, Plan], names: Sequence[str], jobs: int) -> dict[str, Plan]:
    """Return the same plans with factors in place of grids where they take fewer bits at the same distortion.

    Args:
        graph: the weights.
        plans: of all weights.
        names: weights on grids to try.
        jobs: threads.
    """
    tried: list[Plan] = Parallel(n_jobs=jobs, prefer="threads")(
        delayed(lowrank_if_cheaper)(graph.weights[name], plans[name]) for name in names
    )
    return {**plans, **dict(zip(names, tried, strict=True))}


def lowrank_if_cheaper(weight: Weight, plan: GridPlan) -> GridPlan | LowRankPlan:
    """Return factors with the distortion of a grid if they take at most GAIN of its bits, else the grid."""
    weights = as_float32(weight)
    quantized = plan.quantize(weight)
    # In float64: rounded to float32, products would move the error, and with it the factors' steps.
    error = float(np.square(weights - quantized.values(np.float64)).mean())
    if error <= 0:
        return plan
    factors = factorize(weights, error, GAIN * rate_bits([matrix_of(quantized)]))
    return plan if factors is None else LowRankPlan(plan.step, factors)


def has_few_directions(weight: Weight) -> bool:
    """Return whether few directions carry a matrix's energy: a screen in a hundredth of the decomposition's time.

    The participation ratio, (sum s**2)**2 / sum s**4 over singular values s, is about half the shorter side for noise
    and the rank for equal singular values; at half the rank of a square matrix two factors are as large as the whole.
    """
    matrix = as_float32(weight)
    side = min(matrix.shape)
    if 2 * sum(matrix.shape) > SIDE_MAX or side < SIDE_MIN:
        return False
    with np.errstate(over="ignore", invalid="ignore"):  # of weights around 1e19; they are not tried then
        gram = matrix.T @ matrix if side == matrix.shape[1] else matrix @ matrix.T
    squares = float(np.square(gram, dtype=np.float64).sum())
    return float(np.trace(gram, dtype=np.float64)) ** 2 < PARTICIPATION_MAX * side * squares
