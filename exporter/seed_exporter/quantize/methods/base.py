"""Methods: functions that plan all weights of a graph, with the statistics that they need before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from seed_exporter.calibrate import Statistic
from seed_exporter.codecs.base import Plan
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.effort import Effort
from seed_exporter.quantize.evaluator import Evaluator

Alive = Callable[[], None]
"""Sign of life: a callback that is called now and then during long work."""


@dataclass(frozen=True)
class Choice:
    """Plans that a method chose.

    Attributes:
        plans: plans of all weights, by the weights' names.
        met: True if they keep the goal, or there was none. Where they don't, no plans of the method are smaller.
    """

    plans: Mapping[str, Plan]
    met: bool = True


@dataclass(frozen=True)
class Method:
    """One word of `--method`.

    Attributes:
        choose: function that plans the evaluator's graph for its goal.
        needs: gives the statistics that it reads at an effort, see `calibrate`.
        prepare: rewrites the graph before anything is measured, to one that computes the same but for rounding.
        has_sizes: True if it can make seeds of different sizes, so that a size makes sense.
        has_quality: True if it can search for a quality as well.
        has_default: True if it promises a ratio and a quality where no goal is given (`default_size`, `evaluate.line`).
        tunes: True if vectors may be fitted behind its search: they are its to round, and nothing is repeated by it.
        heals: True if its plans are steps and integers: healing may take the place of its search, as it ends in the
            same plans, and devices may hold the integers.
    """

    choose: Callable[[Evaluator, Alive], Choice]
    needs: Callable[[Effort], frozenset[Statistic[Any]]] = lambda effort: frozenset()
    prepare: Callable[[Graph], Graph] = lambda graph: graph
    has_sizes: bool = True
    has_quality: bool = False
    has_default: bool = False
    tunes: bool = False
    heals: bool = False
