"""Find the outputs that noise decides, such as a voice whose every answer has another length.

Two runs of the original on one input tell. Both come from one session: the first runs of two sessions agree, because
ONNX Runtime seeds an operator with a number of the process and the operator's place in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from seed_exporter.evaluate.compare import compare
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Array

_OPERATORS: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout",
     "BiasDropout", "BitmaskDropout", "BitmaskBiasDropout", "Sampling"}
)  # fmt: skip
"""Operators that draw random numbers; Dropout does so in training mode only."""

Noisy = Mapping[str, frozenset[int]]
"""Outputs that noise decides, by name, and the axes whose sizes it decides."""


def draws_noise(graph: Graph) -> bool:
    """Return whether the graph has an operator that draws random numbers."""
    return any(node.op_type in _OPERATORS for node in GraphIndex(graph).nodes)


def noisy_outputs(
    first: Sequence[Mapping[str, Array]], again: Sequence[Mapping[str, Array]], rounding: float
) -> dict[str, frozenset[int]]:
    """Find the outputs in which two runs of the same calls differ.

    Args:
        first: outputs by name, one mapping per call.
        again: the same of another run.
        rounding: relative error of floats that is no noise, as sums may be added in any order.
    """
    found = {}
    for name, error in compare(first, again).items():
        pairs = [(one[name], two[name]) for one, two in zip(first, again, strict=True) if name in one and name in two]
        is_float = any(one.dtype.kind == "f" for one, _ in pairs)
        if error.identical or (is_float and error.relative <= rounding):
            continue
        found[name] = frozenset(
            axis for one, two in pairs for axis, sizes in enumerate(zip(one.shape, two.shape, strict=False))
            if len(set(sizes)) > 1
        )  # fmt: skip
    return found
