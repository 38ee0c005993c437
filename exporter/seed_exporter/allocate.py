"""Which codec each weight gets, and how fine.

Three kinds of weights: matrices of floats, which carry the size and are quantized; vectors and other small floats
(biases, norms, scales), which carry little and matter much; and integers, which are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from joblib import Parallel, delayed

from seed_exporter.codecs import grid, lowrank
from seed_exporter.codecs.lowrank import Factors
from seed_exporter.floats import as_float32
from seed_exporter.graph import Graph, Weight
from seed_runtime.codecs.split import LOW_BITS

FLOATS: Final = frozenset({"float32", "float16", "bfloat16", "float64"})
MATRIX_MIN: Final = 1024
"""Elements below which a float tensor counts as a vector: there is nothing to gain and much to lose."""
MANTISSA_BITS: Final = {"float32": 23, "bfloat16": 7, "float16": 10, "float64": 52}


LOWRANK_MIN: Final = 16
"""Rows or columns below which factors can't win."""
LOWRANK_GAIN: Final = 0.98
"""A product is slower to decode than a grid: it has to save 2 %."""


@dataclass(frozen=True)
class Coding:
    """How one weight is coded.

    `step`: quantization step of `grid` and `lowrank`, in weight units. `mantissa_bits`: what is kept of each float,
    None for all. `components`: of `moments`.
    """

    codec: str
    step: float = 0.0
    mantissa_bits: int | None = None
    components: int = 0
    factors: Factors | None = field(default=None, compare=False, repr=False)
    """Of `lowrank`: made when it was tried, too dear to make again."""


def kind(weight: Weight) -> str:
    """`matrix`, `vector` or `exact`."""
    if weight.dtype.name not in FLOATS:
        return "exact"
    axes = sum(size > 1 for size in weight.shape)
    return "matrix" if axes >= 2 and weight.count >= MATRIX_MIN else "vector"


def lossless(graph: Graph) -> dict[str, Coding]:
    """Every bit of every weight."""
    return {name: exact(weight) for name, weight in graph.weights.items()}


def exact(weight: Weight, mantissa_bits: int | None = None) -> Coding:
    """`split` where it knows the type and there is enough to learn from, else `raw`."""
    if weight.dtype.name in LOW_BITS and weight.size >= MATRIX_MIN:
        return Coding("split", mantissa_bits=mantissa_bits)
    return Coding("raw", mantissa_bits=mantissa_bits)


def uniform(graph: Graph, coarseness: float, mantissa_bits: int) -> dict[str, Coding]:
    """Every matrix at the same relative distortion: a step of `coarseness` times its root mean square.

    Without calibration nothing better is known: what follows a layer usually normalises its scale away.
    """
    codings = {}
    for name, weight in graph.weights.items():
        match kind(weight):
            case "matrix" if (rms := root_mean_square(weight)) > 0:
                codings[name] = Coding("grid", step=float(np.float32(coarseness * rms)))
            case "vector" if mantissa_bits < MANTISSA_BITS[weight.dtype.name]:
                codings[name] = exact(weight, mantissa_bits)
            case _:
                codings[name] = exact(weight)
    return codings


def with_lowrank(graph: Graph, codings: dict[str, Coding], jobs: int) -> dict[str, Coding]:
    """The same codings, with `lowrank` in place of `grid` where it takes fewer bits at the same distortion."""
    names = [name for name, coding in codings.items() if coding.codec == "grid" and _may_be_low_rank(graph.weights[name])]
    tried: list[Coding] = Parallel(n_jobs=jobs, prefer="threads")(
        delayed(_cheaper)(graph.weights[name], codings[name]) for name in names
    )
    return {**codings, **dict(zip(names, tried, strict=True))}


def _may_be_low_rank(weight: Weight) -> bool:
    return min(weight.matrix_view()) >= LOWRANK_MIN


def _cheaper(weight: Weight, coding: Coding) -> Coding:
    weights = as_float32(weight)
    integers = grid.quantize(weights, coding.step)
    error = float(np.square(weights - integers * np.float32(coding.step), dtype=np.float64).mean())
    bits = lowrank.rate_bits([grid.matrix_of(integers, coding.step)])
    factors = lowrank.encode(weights, error, LOWRANK_GAIN * bits) if error > 0 else None
    return Coding("lowrank", step=coding.step, factors=factors) if factors is not None else coding


def root_mean_square(weight: Weight) -> float:
    """Of finite weights; a matrix with an infinity or NaN in it has none and is kept as it is."""
    values = as_float32(weight).reshape(-1)
    value = float(np.sqrt(np.square(values, dtype=np.float32).mean(dtype=np.float64)))
    return value if np.isfinite(value) and np.float32(1 / value if value else 0) < np.inf else 0.0


def matrices(graph: Graph, codings: Mapping[str, Coding]) -> list[str]:
    """Names of the weights that are quantized."""
    return [name for name, coding in codings.items() if coding.codec in ("grid", "lowrank")]
