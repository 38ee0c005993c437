"""Decides which codec each weight gets, and how fine: plans for all weights of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import MANTISSA_BITS, ExactPlan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.kinds import Kind, kind_of, matrix_min
from seed_exporter.graph.matrix import fits_a_stream
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs.split import LOW_BITS

SPLIT_MIN: Final = 64
"""Size below which a tensor's row in a stream's head costs more than its exponents [B]."""
VECTOR_BITS: Final = (7, 10, 13, 16, 23)
"""Mantissa bits among which the precision of vectors is chosen."""


def lossless(graph: Graph) -> dict[str, Plan]:
    """Plan to keep every bit of every weight."""
    return {name: exact(weight) for name, weight in graph.weights.items()}


def exact(weight: Weight, mantissa_bits: int | None = None) -> ExactPlan:
    """Plan to keep a weight, or some mantissa bits of it: `split` where the type and the size suit it, else `raw`."""
    if weight.dtype.name in LOW_BITS and weight.size >= SPLIT_MIN and fits_a_stream(weight):
        return SplitPlan(mantissa_bits)
    return RawPlan(mantissa_bits)


def uniform(graph: Graph, units: Mapping[str, float], coarseness: float, mantissa_bits: int) -> dict[str, Plan]:
    """Plan every matrix at `coarseness` times its unit step, and vectors at `mantissa_bits`.

    Matrices without a unit step (zeros, an infinity, scales of a quantized model) are kept as they are.

    Args:
        graph: the weights.
        units: unit steps by name, in weight units, see `steps.unit_steps`.
        coarseness: quantization step, in unit steps.
        mantissa_bits: mantissa bits that are kept of vectors.
    """
    least = matrix_min(graph)
    plans: dict[str, Plan] = {}
    for name, weight in graph.weights.items():
        if name in units:
            plans[name] = GridPlan(float(np.float32(coarseness * units[name])))
        elif kind_of(weight, least) is Kind.VECTOR and mantissa_bits < MANTISSA_BITS[weight.dtype.name]:
            plans[name] = exact(weight, mantissa_bits)
        else:
            plans[name] = exact(weight)
    return plans
