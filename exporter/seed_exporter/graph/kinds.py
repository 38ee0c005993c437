"""The three kinds of weights that quantization tells apart.

Matrices of floats carry the size and are quantized; vectors and other small floats (biases, norms, scales) carry little
and matter much; integers are kept as they are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from seed_exporter.graph.matrix import fits_a_stream
from seed_exporter.graph.model import Weight

FLOATS: Final = frozenset({"float32", "float16", "bfloat16", "float64"})
"""Element types whose values may be rounded."""
MATRIX_MIN: Final = 1024
"""Number of elements below which a float tensor counts as a vector: there is little to gain and much to lose."""


class Kind(StrEnum):
    """Kind of a weight, which decides how it is quantized."""

    MATRIX = "matrix"
    VECTOR = "vector"
    EXACT = "exact"


def kind_of(weight: Weight) -> Kind:
    """Return the kind of a weight."""
    if weight.dtype.name not in FLOATS:
        return Kind.EXACT
    axes = sum(size > 1 for size in weight.shape)
    return Kind.MATRIX if axes >= 2 and weight.count >= MATRIX_MIN and fits_a_stream(weight) else Kind.VECTOR
