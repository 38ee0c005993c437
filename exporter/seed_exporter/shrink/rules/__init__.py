"""Rules of operators, one file a family; importing this package registers all of them."""

from seed_exporter.shrink.registry import RULES
from seed_exporter.shrink.rules import (
    convolutions,
    elementwise,
    indexing,
    matrices,
    movement,
    normalizations,
    reductions,
)

__all__ = [
    "RULES",
    "convolutions",
    "elementwise",
    "indexing",
    "matrices",
    "movement",
    "normalizations",
    "reductions",
]
