"""`grid`, the default: matrices on uniform grids, as fine as the size allows, or low-rank where that is smaller."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from seed_exporter.build.streams import decoded
from seed_exporter.graph.matrix import with_mantissa
from seed_exporter.graph.model import Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import MANTISSA_BITS, VECTOR_BITS, Coding
from seed_exporter.quantize.methods.evaluator import Choice, Trial
from seed_exporter.quantize.size_search import Found, RateModel, fit

DEFAULT_RATIO: Final = 4.6
"""Against fp32: what no public model's task score notices (docs/benchmarks.md)."""
LEAST_RATIO: Final = 4.05
LOSSLESS_SHARE: Final = 0.5
"""Of the source's bytes: a goal above it may leave room for every bit (random fp32 takes .84, ternary weights less)."""
VECTOR_SHARE: Final = 0.1
"""Of the outputs' error may come from rounding biases and norms: they carry few bytes."""


def choose(trial: Trial, alive: Callable[[], None]) -> Choice:
    """The finest coarseness that keeps the goal; then the precision of vectors, by what it does to the outputs."""
    model = RateModel(trial.graph)
    if not model.elements:
        codings = allocate.uniform(trial.graph, 1.0, VECTOR_BITS[-1])
        return Choice(codings, trial.goal is None or trial.size_of(codings) <= trial.goal)
    if trial.goal is not None and trial.goal > LOSSLESS_SHARE * trial.source_bytes:
        codings = allocate.lossless(trial.graph)
        if trial.size_of(codings) <= trial.goal:
            return Choice(codings)
    goal = trial.goal if trial.goal is not None else _default_goal(trial, model)

    def fitted(codings_at: Callable[[float], dict[str, Coding]], start: float | None = None) -> Found:
        def size_at(coarseness: float) -> int:
            alive()
            return trial.size_of(codings_at(coarseness))

        return fit(model, goal, size_at, start)

    def with_vectors(bits: int) -> Callable[[float], dict[str, Coding]]:
        return lambda coarseness: allocate.uniform(trial.graph, coarseness, bits)

    bits = VECTOR_BITS[1]
    found = fitted(with_vectors(bits))
    wanted = _vector_bits(trial, found.coarseness)
    if wanted != bits and _must_fit(trial, with_vectors(wanted)(found.coarseness)):
        found = fitted(with_vectors(wanted), found.coarseness)
    codings = with_vectors(wanted)(found.coarseness)

    names = allocate.low_rank_candidates(trial.graph, codings)
    alive()
    factored = allocate.with_lowrank(trial.graph, codings, names, trial.encoder.jobs)
    names = [name for name in names if factored[name].codec == "lowrank"]
    # One more stream has tables and lanes of its own.
    if not names or trial.size_of(codings) <= trial.size_of(factored):
        return Choice(codings, found.met or trial.goal is None)
    if trial.goal is None:
        return Choice(factored)

    # What factors save buys finer steps.
    @cache
    def with_factors(coarseness: float) -> dict[str, Coding]:
        codings = allocate.uniform(trial.graph, coarseness, wanted)
        return allocate.with_lowrank(trial.graph, codings, names, trial.encoder.jobs)

    found = fitted(with_factors, found.coarseness)
    return Choice(with_factors(found.coarseness), found.met)


def _must_fit(trial: Trial, codings: dict[str, Coding]) -> bool:
    """Whether a search is worth its time: for a goal always, by default only if the seed would miss its promise."""
    return trial.goal is not None or trial.size_of(codings) > _fp32_bytes(trial) / LEAST_RATIO


def _default_goal(trial: Trial, model: RateModel) -> int:
    """The quantized weights at DEFAULT_RATIO against fp32, and the rest beside them where it is more than little.

    A small model's graph and vectors weigh more; it still gets LEAST_RATIO in all, unless it was small already.
    """
    matrices = int(model.elements * 4 / DEFAULT_RATIO)
    kept = trial.kept_bytes()
    goal = matrices if kept * 8 < matrices else int(kept + 0.95 * matrices)
    least = int(_fp32_bytes(trial) / LEAST_RATIO)
    return least if least < goal and kept < 0.6 * least else goal


def _fp32_bytes(trial: Trial) -> int:
    """Of the weights, with floats of any width as fp32: half as many bits again would be too few for fp16 weights."""
    return sum(
        weight.size if allocate.kind(weight) == "exact" else 4 * weight.count for weight in trial.graph.weights.values()
    )


def _vector_bits(trial: Trial, coarseness: float) -> int:
    """Mantissa bits of vectors: the fewest that add little to the error that the matrices make."""
    codings = allocate.uniform(trial.graph, coarseness, VECTOR_BITS[-1])
    allowed = VECTOR_SHARE * trial.error_with(lambda weight: decoded(weight, codings[weight.name]))

    def rounded(weight: Weight, bits: int) -> np.ndarray:
        if codings[weight.name].codec == "grid" or allocate.kind(weight) == "exact":
            return weight.data
        return with_mantissa(weight.data, MANTISSA_BITS[weight.dtype.name], bits)

    for bits in VECTOR_BITS[:-1]:
        if trial.keeps(lambda weight: rounded(weight, bits), allowed):  # noqa: B023  called at once
            return bits
    return VECTOR_BITS[-1]
