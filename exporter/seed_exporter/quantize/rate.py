"""Estimates the rate of quantized matrices from samples, for any step: where a search for a size begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph

FINEST: Final = 2.0**-12
"""Finest coarseness that a search tries, in unit steps."""
COARSEST: Final = 8.0
"""Coarsest coarseness that a search tries, in unit steps."""
_SAMPLE: Final = 1 << 12
"""Number of elements of each matrix that are sampled: it gives the entropy to some hundredths of a bit."""
_FAR: Final = 1 << 15
"""Largest magnitude of a sampled integer that is told apart from larger ones."""
_HIGH_RATE: Final = 1 / 32
"""Step, as a share of a matrix's scale, that costs some 7 bits a weight: from there on one more bit halves it."""


class RateModel:
    """The bytes of all quantized matrices at any coarseness, estimated by the entropy of samples."""

    def __init__(self, graph: Graph, units: Mapping[str, float]) -> None:
        """Sample the matrices that have a unit step."""
        self._samples = []
        for name, unit in units.items():
            flat = as_float32(graph.weights[name]).reshape(-1)
            stride = max(1, flat.size // _SAMPLE) | 1  # odd, so that it doesn't walk along one column
            self._samples.append((flat.size, flat[::stride].astype(np.float32) / np.float32(unit)))
        self.elements = sum(size for size, _ in self._samples)
        """Number of elements of all these matrices."""

    def bytes_at(self, coarseness: float) -> float:
        """Estimate the bytes at `coarseness` unit steps by the order-0 entropy."""
        return sum(size * bits_per_weight(sample, coarseness) for size, sample in self._samples) / 8

    def coarseness_for(self, size: float) -> float:
        """Find the finest coarseness at which the estimate is at most `size` bytes."""
        low, high = math.log2(FINEST), math.log2(COARSEST)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bytes_at(2**middle) > size else (low, middle)
        return float(2**high)


def bits_per_weight(sample: np.ndarray, step: float) -> float:
    """Estimate bits per weight.

    The entropy measured on n samples can't exceed log2 n, so below the step `high` it is extrapolated: halving the step
    costs one bit.

    Args:
        sample: `(n,)`, weights.
        step: quantization step, in their units.
    """
    high = max(step, _HIGH_RATE * float(np.sqrt(np.square(sample).mean())))
    return _entropy(sample, high) + math.log2(high / step)


def _entropy(sample: np.ndarray, step: float) -> float:
    integers = np.rint(sample * np.float32(1 / step)).clip(-_FAR, _FAR).astype(np.int32)
    counts = np.bincount(integers + _FAR)
    counts = counts[counts > 0]
    share = counts / counts.sum()
    # Miller and Madow: a sample of n sees each of its k values too often by half an observation.
    return float(-(share * np.log2(share)).sum()) + (counts.size - 1) / (2 * sample.size * math.log(2))
