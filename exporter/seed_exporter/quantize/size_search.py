"""Finds the coarseness at which a seed has the size that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import unit_steps

FINEST: Final = 2.0**-12
COARSEST: Final = 8.0
_SAMPLE: Final = 1 << 12
"""Elements of each matrix that the estimate looks at: entropy to some hundredths of a bit; later rounds correct it."""
_FAR: Final = 1 << 15
_HIGH_RATE: Final = 1 / 32
"""Steps of this share of the scale, some 7 bits a weight, are fine enough for one more bit to halve them."""
_TRIES: Final = 6
_STRIDE: Final = 1.25
"""Where the estimate leads nowhere: a third of a bit per weight."""
_CLOSE: Final = 0.985
"""A seed of this share of the goal is good enough: the rest would take another encoding."""


@dataclass(frozen=True)
class Found:
    """`met`: the file has at most the bytes asked for."""

    coarseness: float
    met: bool


class RateModel:
    """Estimates the bytes of all quantized matrices from samples, for any coarseness."""

    def __init__(self, graph: Graph) -> None:
        self._samples = []
        for name, unit in unit_steps(graph).items():
            flat = as_float32(graph.weights[name]).reshape(-1)
            stride = max(1, flat.size // _SAMPLE) | 1  # odd, so that it doesn't walk along one column
            self._samples.append((flat.size, flat[::stride].astype(np.float32) / np.float32(unit)))
        self.elements = sum(size for size, _ in self._samples)

    def bytes_at(self, coarseness: float) -> float:
        """Order-0 entropy at `coarseness` unit steps."""
        return sum(size * _rate(sample, coarseness) for size, sample in self._samples) / 8

    def coarseness_for(self, size: float) -> float:
        """The finest at which the estimate is at most `size` bytes."""
        low, high = math.log2(FINEST), math.log2(COARSEST)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bytes_at(2**middle) > size else (low, middle)
        return float(2**high)


def fit(model: RateModel, goal: int, size_at: Callable[[float], int], start: float | None = None) -> Found:
    """The finest coarseness, nearly, at which `size_at` gives at most `goal` bytes.

    `size_at` encodes for real; it is called at most a handful of times, first with `start`.
    """
    coarseness = start or model.coarseness_for(goal)
    too_fine, fits, best_size = 0.0, math.inf, 0
    known: list[tuple[float, int]] = []
    for _ in range(_TRIES):
        size = size_at(coarseness)
        if size > goal:
            too_fine = max(too_fine, coarseness)
        elif size > best_size:
            fits, best_size = coarseness, size
        if goal * _CLOSE <= best_size or too_fine == COARSEST or fits == FINEST:
            break
        known.append((math.log2(coarseness), size))
        coarseness = _next(model, known, goal * (1 + _CLOSE) / 2)
        if not too_fine < coarseness < fits:
            coarseness = _between(too_fine, fits)
    while best_size == 0 and too_fine < COARSEST:
        too_fine = _between(too_fine, fits)
        if size_at(too_fine) <= goal:
            return Found(too_fine, True)
    return Found(fits, True) if best_size else Found(COARSEST, False)


def _next(model: RateModel, known: list[tuple[float, int]], goal: float) -> float:
    """Where the size should be `goal`: by the estimate at first, then on the line through the two nearest sizes."""
    (log, size), *others = sorted(known, key=lambda point: abs(point[1] - goal))
    if others and others[0][1] != size:
        wanted = 2 ** (log + (goal - size) * (others[0][0] - log) / (others[0][1] - size))
    else:
        # What the estimate left out (graph, vectors, tables) is taken off the goal; what contexts saved is added.
        wanted = model.coarseness_for(max(model.bytes_at(2**log) + goal - size, 1))
    return min(max(wanted, FINEST), COARSEST)


def _between(too_fine: float, fits: float) -> float:
    """A coarseness within what is known: 0 and infinity where nothing is."""
    if not too_fine:
        return max(fits / _STRIDE, FINEST)
    return min(too_fine * _STRIDE, COARSEST) if fits == math.inf else (too_fine * fits) ** 0.5


def _rate(sample: np.ndarray, coarseness: float) -> float:
    """Bits of a weight. A sample can't show more than the logarithm of its size, and from `high` on each bit halves."""
    high = max(coarseness, _HIGH_RATE * float(np.sqrt(np.square(sample).mean())))
    return _entropy(sample, high) + math.log2(high / coarseness)


def _entropy(sample: np.ndarray, coarseness: float) -> float:
    integers = np.rint(sample * np.float32(1 / coarseness)).clip(-_FAR, _FAR).astype(np.int32)
    counts = np.bincount(integers + _FAR)
    counts = counts[counts > 0]
    share = counts / counts.sum()
    # Miller and Madow: a sample of n sees each of its k values too often by half an observation.
    return float(-(share * np.log2(share)).sum()) + (counts.size - 1) / (2 * sample.size * math.log(2))
