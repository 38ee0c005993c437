"""Quantization steps without calibration data, relative to a unit (docs/adr/0006-steps-without-calibration.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from seed_exporter.graph.kinds import Kind, kind_of, matrix_min
from seed_exporter.graph.model import Graph
from seed_runtime.codecs.symbols import STEP_LEAST

STEP_FINEST: Final = 2.0**-16
"""Finest step that is ever asked for, in unit steps; it must still be a normal number."""
UNIT_TO_SCALE_MAX: Final = 8.0
"""Largest factor between a matrix's unit step and its own scale. Beyond it, a matrix much smaller than the others, such
as one in front of large inputs, would be rounded to nothing. Public models stay below 7."""
PREQUANTIZED_SHARE: Final = 0.5
"""Share of a model's bytes from which on integers make it a quantized one: its floats are scales and offsets then."""


def unit_steps(graph: Graph, scales: Mapping[str, float], kind: Kind = Kind.MATRIX) -> dict[str, float]:
    """Compute a unit step for each matrix that can be quantized, in weight units.

    It is the geometric mean of the matrix's own scale and of all matrices' scale. Steps that follow each matrix's scale
    are right where a normalisation follows it, one step for all where none does; without calibration neither is known.
    KL to the original at 4.6x, for exponents 1, 1/2 and 0 of the matrix's own root mean square: EfficientNet-lite0
    .0071, .0022, .0013; PP-OCR recognition .047, .0095, .031.

    A model whose weights are integers already has none: its floats are the scales of these, and as sensitive as norms.

    Args:
        graph: the weights.
        scales: their root mean squares, see `calibrate.WEIGHT_SCALES`.
        kind: `Kind.VECTOR` for the unit steps of vectors, which have a common scale of their own.
    """
    integers = sum(weight.size for weight in graph.weights.values() if kind_of(weight) is Kind.EXACT)
    if integers > PREQUANTIZED_SHARE * graph.distinct_bytes:
        return {}
    least = matrix_min(graph)
    own = {
        name: scales[name]
        for name, weight in graph.weights.items()
        if kind_of(weight, least) is kind and scales[name] > 0
    }
    if not own:
        return {}
    common = float(np.exp(np.mean(np.log(list(own.values())))))
    units = {name: scale * clamp_ratio((common / scale) ** 0.5) for name, scale in own.items()}
    return {name: unit for name, unit in units.items() if unit * STEP_FINEST > STEP_LEAST}


def clamp_ratio(ratio: float) -> float:
    """Keep a unit step within UNIT_TO_SCALE_MAX of its matrix's own scale, either way."""
    return min(max(ratio, 1 / UNIT_TO_SCALE_MAX), UNIT_TO_SCALE_MAX)
