"""Measures what methods need to know before they plan: only what was asked for, in one pass over the weights.

A statistic is one function here and one line in `_STATISTICS`; a method names those that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from seed_exporter.calibrate.weight_scales import root_mean_square
from seed_exporter.graph.model import Graph, Weight

Statistics = Mapping[str, Mapping[str, float]]
"""Per statistic, its value of each weight by the weight's name."""

WEIGHT_SCALES: Final = "weight scales"
"""Root mean square of each weight, in weight units; 0 where it has none (see `root_mean_square`)."""

_STATISTICS: Final[Mapping[str, Callable[[Weight], float]]] = {
    WEIGHT_SCALES: root_mean_square,
}


def collect(graph: Graph, wanted: Collection[str]) -> Statistics:
    """Measure the wanted statistics of every weight.

    Args:
        graph: stays as it is.
        wanted: names of statistics.
    """
    return {
        statistic: {name: _STATISTICS[statistic](weight) for name, weight in graph.weights.items()}
        for statistic in wanted
    }
