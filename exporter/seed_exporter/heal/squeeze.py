"""The end of a run whose size is a little above its goal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PLACES_MOST: Final = 16
"""Most places of their grid by which steps are coarsened: a quarter of a natural logarithm."""
OVER_MOST: Final = 1.15
"""Largest size, as a multiple of the goal, that coarser steps can bring down: more would undo what was trained."""


def squeeze(coarsen: Callable[[int], None], size: Callable[[], int], goal: int) -> bool:
    """Coarsen steps as little as keeps a size; return whether they were.

    Args:
        coarsen: moves all steps up by places of their grid.
        size: computes the size as it is now [B].
        goal: largest size [B].
    """
    places = 0

    def size_at(wanted: int) -> int:
        nonlocal places
        coarsen(wanted - places)
        places = wanted
        return size()

    least = least_places(size_at, goal)
    coarsen(least - places)
    return bool(least)


def least_places(size_at: Callable[[int], int], goal: int) -> int:
    """Return the fewest places by which steps must be coarsened; 0 where none keep the goal.

    Seven places, which cost 4 % of the bytes of a model of 3 bits a weight, cost 25 % of MobileNetV2's at 150x: so
    sizes are computed.

    Args:
        size_at: computes the size at steps coarsened by so many places [B].
        goal: largest size [B].
    """
    if size_at(PLACES_MOST) > goal:
        return 0
    low, high = 0, PLACES_MOST
    while high - low > 1:
        middle = (low + high) // 2
        if size_at(middle) <= goal:
            high = middle
        else:
            low = middle
    return high
