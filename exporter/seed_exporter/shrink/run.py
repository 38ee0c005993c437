"""Shrink a graph: cut what is dead until nothing is."""

from __future__ import annotations

from typing import Final

from seed_exporter.graph.model import Graph
from seed_exporter.shrink.analysis import analyse
from seed_exporter.shrink.emptied import without_emptied
from seed_exporter.shrink.places import Places
from seed_exporter.shrink.removal import without_dead
from seed_exporter.shrink.static import with_static_sizes
from seed_exporter.shrink.tables import without_repeated_rows

_GRAINS: Final = (0, 1, 2)
"""What is cut of axes that a reshape divides (`analyse`): heads, then the same channels of all heads."""
_ROUNDS_MAX: Final = 50
"""Rounds after which a graph is left as it is; in each, what the one before removed makes more dead."""


def shrink(graph: Graph, places: Places | None = None) -> Graph:
    """Return a graph without dead channels that computes the same but for rounding; the graph itself if none is dead.

    A channel is dead if it is the same for every input, or if nothing reads it. A constant other than 0 is added to
    the biases of those that read it. Rows of tables that are the same are stored once. Names, types and shapes of
    inputs and outputs stay as they are.

    Args:
        graph: the graph.
        places: is told what is left of the graph's initializers.
    """
    places = Places() if places is None else places
    prepared = with_static_sizes(graph)
    smaller = without_repeated_rows(_without_dead_channels(prepared, places), places)
    return graph if smaller is prepared else smaller


def _without_dead_channels(graph: Graph, places: Places) -> Graph:
    for grain in _GRAINS:
        for _ in range(_ROUNDS_MAX):
            values = analyse(graph, grain)
            smaller = without_emptied(values)
            if smaller is graph:
                smaller = without_dead(values, places)
            if smaller is graph:
                break
            graph = smaller
    return graph
