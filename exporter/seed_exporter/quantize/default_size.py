"""The largest size of a seed for which no size was asked: four times below fp32 at least, where anything allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seed_exporter.graph.kinds import fp32_bytes
from seed_exporter.quantize import allocate, vectors
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.evaluator import Evaluator

DEFAULT_RATIO: Final = 4.6
"""Ratio against fp32 that no public model's task score notices (docs/benchmarks.md)."""
LEAST_RATIO: Final = 4.05
"""Ratio against fp32 that the default keeps where anything can be quantized."""
BITS_LEAST: Final = 2.0
"""Bits for each weight of a matrix below which the default gives up LEAST_RATIO: there a third of a weight is lost."""

_TABLE_BYTES: Final = 64
"""Size of a probability table, which a few hundred weights notice [B]."""


def default_largest(evaluator: Evaluator, units: Mapping[str, float]) -> int:
    """Compute the default's size: matrices at DEFAULT_RATIO against fp32, and the rest beside them where it is large.

    A small model's graph and vectors weigh more; it still gets LEAST_RATIO in all, unless nearly nothing would be left
    for the matrices.

    Args:
        evaluator: has the graph.
        units: unit steps of the matrices.
    """
    graph = evaluator.graph
    elements = sum(graph.weights[name].count for name in units)

    def kept_bytes(mantissa_bits: int) -> int:
        return evaluator.kept_bytes(allocate.uniform(graph, units, 1.0, mantissa_bits))

    matrices, kept = int(elements * 4 / DEFAULT_RATIO), kept_bytes(VECTOR_BITS[1])
    largest = matrices if kept * 8 < matrices else int(kept + 0.95 * matrices) + _TABLE_BYTES
    least = int(fp32_bytes(graph) / LEAST_RATIO)
    if largest <= least:
        return largest
    room = least - kept_bytes(vectors.MANTISSA_BITS[0])
    return least if 8 * (room - _TABLE_BYTES) >= BITS_LEAST * elements else largest
