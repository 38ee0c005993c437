"""The three kinds of weights that quantization tells apart.

Matrices of floats carry the size and are quantized; vectors and other small floats (biases, norms, scales) carry little
and matter much; integers are kept as they are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from seed_exporter.graph.matrix import fits_a_stream
from seed_exporter.graph.model import Graph, Weight

FLOATS: Final = frozenset({"float32", "float16", "bfloat16", "float64"})
"""Element types whose values may be rounded."""
MATRIX_MIN: Final = 1024
"""Number of elements below which a float tensor counts as a vector: there is little to gain and much to lose."""
MATRIX_SHARE: Final = 1 / 16
"""Share of a graph's elements from which on a float tensor counts as a matrix, however few they are.

In a model of 7,000 weights, a layer of 960 is a seventh of the size. The last layer of MTCNN's first network, 128 of
6,600 weights, gets finer steps among the vectors: outputs had an error of 6.7 % at 4.05x, and 12 % at a share of 1/64.
"""


class Kind(StrEnum):
    """Kind of a weight, which decides how it is quantized."""

    MATRIX = "matrix"
    VECTOR = "vector"
    EXACT = "exact"


def fp32_bytes(graph: Graph) -> int:
    """Compute the size of a graph's weights with floats of any width as fp32 [B]: fp16 needs as many bits as fp32."""
    return sum(weight.size if kind_of(weight) is Kind.EXACT else 4 * weight.count for weight in graph.weights.values())


def matrix_min(graph: Graph) -> int:
    """Return the number of elements from which on a float tensor of this graph counts as a matrix."""
    return min(MATRIX_MIN, int(graph.parameters * MATRIX_SHARE))


def kind_of(weight: Weight, least: int = MATRIX_MIN) -> Kind:
    """Return the kind of a weight.

    Args:
        weight: any weight.
        least: the `matrix_min` of its graph.
    """
    if weight.dtype.name not in FLOATS:
        return Kind.EXACT
    axes = sum(size > 1 for size in weight.shape)
    return Kind.MATRIX if axes >= 2 and weight.count >= least and fits_a_stream(weight) else Kind.VECTOR
