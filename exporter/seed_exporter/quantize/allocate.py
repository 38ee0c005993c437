"""Which codec each weight gets, and how fine.

Three kinds of weights: matrices of floats, which carry the size and are quantized; vectors and other small floats
(biases, norms, scales), which carry little and matter much; and integers, which are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from joblib import Parallel, delayed

from seed_exporter.codecs import lowrank, moments
from seed_exporter.codecs.lowrank import Factors
from seed_exporter.graph.matrix import as_float32, coded_view, fits_a_stream
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs.encode import grid
from seed_runtime.codecs.split import LOW_BITS
from seed_runtime.codecs.symbols import STEP_LEAST
from seed_runtime.limits import SIDE_MAX

FLOATS: Final = frozenset({"float32", "float16", "bfloat16", "float64"})
MATRIX_MIN: Final = 1024
"""Elements below which a float tensor counts as a vector: there is nothing to gain and much to lose."""
MANTISSA_BITS: Final = {"float32": 23, "bfloat16": 7, "float16": 10, "float64": 52}

SPLIT_MIN: Final = 64
"""Bytes below which a tensor's row in a stream's head costs more than its exponents."""
VECTOR_BITS: Final = (7, 10, 13, 16, 23)
"""Mantissa bits among which the precision of vectors is chosen."""
PREQUANTIZED: Final = 0.5
"""Of the bytes are integers: what is left of such a model is scales and offsets."""
STRAY_MOST: Final = 8.0
"""Factor between a matrix's unit step and its own scale: beyond, a matrix much smaller than the others, as in front of
large inputs, would be rounded to nothing. Public models stay below 7."""
LOWRANK_MIN: Final = 16
"""Rows or columns below which factors can't win."""
STEP_FINEST: Final = 2.0**-16
"""Of a unit step: finer ones are never asked for, and must still be normal numbers."""
LOWRANK_RATIO: Final = 0.35
"""Of the shorter side: the participation ratio above which factors aren't tried."""
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
    return "matrix" if axes >= 2 and weight.count >= MATRIX_MIN and fits_a_stream(weight) else "vector"


def lossless(graph: Graph) -> dict[str, Coding]:
    """Every bit of every weight."""
    return {name: exact(weight) for name, weight in graph.weights.items()}


def exact(weight: Weight, mantissa_bits: int | None = None) -> Coding:
    """`split` where it knows the type and there is enough to learn from, else `raw`."""
    if weight.dtype.name in LOW_BITS and weight.size >= SPLIT_MIN and fits_a_stream(weight):
        return Coding("split", mantissa_bits=mantissa_bits)
    return Coding("raw", mantissa_bits=mantissa_bits)


def uniform(graph: Graph, coarseness: float, mantissa_bits: int) -> dict[str, Coding]:
    """Every matrix at `coarseness` times its unit step, and vectors at `mantissa_bits`.

    Matrices without a unit step (zeros, an infinity, scales of a quantized model) are kept as they are.
    """
    units = unit_steps(graph)
    codings = {}
    for name, weight in graph.weights.items():
        if name in units:
            codings[name] = Coding("grid", step=float(np.float32(coarseness * units[name])))
        elif kind(weight) == "vector" and mantissa_bits < MANTISSA_BITS[weight.dtype.name]:
            codings[name] = exact(weight, mantissa_bits)
        else:
            codings[name] = exact(weight)
    return codings


def published(graph: Graph, size: int, mantissa_bits: int) -> dict[str, Coding]:
    """The published method: of each matrix as many principal components as its share of `size` bytes holds."""
    codings = uniform(graph, 1.0, mantissa_bits)
    names = matrices(codings)
    total = sum(graph.weights[name].count for name in names)
    for name in names:
        rows, cols = coded_view(graph.weights[name])
        count = moments.components_for(rows, cols, size * rows * cols // total)
        codings[name] = Coding("moments", components=count)
    return codings


def unit_steps(graph: Graph) -> dict[str, float]:
    """A step for each matrix that can be quantized: the geometric mean of its own and of all matrices' scale.

    Steps that follow each matrix's scale are right where a normalisation follows it, one step for all where none
    does. Without calibration neither is known; KL to the original at 4.6x, for exponents 1, 1/2 and 0 of the
    matrix's own root mean square: EfficientNet-lite0 .0071, .0022, .0013; PP-OCR recognition .047, .0095, .031.

    A model whose weights are integers already has none: its floats are the scales of these, and as sensitive as norms.
    """
    integers = sum(weight.size for weight in graph.weights.values() if kind(weight) == "exact")
    if integers > PREQUANTIZED * graph.distinct_bytes:
        return {}
    scales = {
        name: scale
        for name, weight in graph.weights.items()
        if kind(weight) == "matrix" and (scale := root_mean_square(weight)) > 0
    }
    if not scales:
        return {}
    common = float(np.exp(np.mean(np.log(list(scales.values())))))
    units = {name: scale * _within(common / scale) for name, scale in scales.items()}
    return {name: unit for name, unit in units.items() if unit * STEP_FINEST > STEP_LEAST}


def _within(ratio: float) -> float:
    return min(max(ratio**0.5, 1 / STRAY_MOST), STRAY_MOST)


def low_rank_candidates(graph: Graph, codings: Mapping[str, Coding]) -> list[str]:
    """Quantized matrices of which few directions carry the energy."""
    return [name for name in matrices(codings) if _may_be_low_rank(graph.weights[name])]


def with_lowrank(graph: Graph, codings: dict[str, Coding], names: Sequence[str], jobs: int) -> dict[str, Coding]:
    """The same codings; of `names`, `lowrank` in place of `grid` where it takes fewer bits at the same distortion."""
    tried: list[Coding] = Parallel(n_jobs=jobs, prefer="threads")(
        delayed(_cheaper)(graph.weights[name], codings[name]) for name in names
    )
    return {**codings, **dict(zip(names, tried, strict=True))}


def _may_be_low_rank(weight: Weight) -> bool:
    """Whether few directions carry the energy: a screen that takes a hundredth of the decomposition's time.

    The participation ratio, (sum s**2)**2 / sum s**4 over singular values s, is about half the shorter side for noise
    and the rank for equal singular values; at half the rank of a square matrix two factors are as large as the whole.
    """
    matrix = as_float32(weight)
    side = min(matrix.shape)
    if 2 * sum(matrix.shape) > SIDE_MAX or side < LOWRANK_MIN:
        return False
    with np.errstate(over="ignore", invalid="ignore"):  # of weights around 1e19; they are not tried then
        gram = matrix.T @ matrix if side == matrix.shape[1] else matrix @ matrix.T
    squares = float(np.square(gram, dtype=np.float64).sum())
    return float(np.trace(gram, dtype=np.float64)) ** 2 < LOWRANK_RATIO * side * squares


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
    with np.errstate(over="ignore"):
        value = float(np.sqrt(np.square(values, dtype=np.float32).mean(dtype=np.float64)))
    return value if np.isfinite(value) and np.float32(1 / value if value else 0) < np.inf else 0.0


def matrices(codings: Mapping[str, Coding]) -> list[str]:
    """Names of the weights that are quantized."""
    return [name for name, coding in codings.items() if coding.codec in ("grid", "lowrank")]
