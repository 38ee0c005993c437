"""States of a healing that were looked at."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from seed_exporter.codecs.base import Plan
from seed_exporter.graph.model import Graph
from seed_exporter.heal.looks import Look


@dataclass(frozen=True, eq=False)
class Healed:
    """A state of a run, as a seed holds it.

    Attributes:
        graph: the graph whose weights are planned.
        plans: of all weights.
        look: its size and damage.
    """

    graph: Graph
    plans: Mapping[str, Plan]
    look: Look


@dataclass(frozen=True, eq=False)
class Seen:
    """A state whose size is still computed.

    Attributes:
        graph, plans, share, damage: as of `Healed`.
        bits: that the rate said.
        snapshot: of the student, matrices rounded, where checkpoints are written.
        size: of the seed [B].
    """

    graph: Graph
    plans: Mapping[str, Plan]
    share: float
    damage: float
    bits: float
    snapshot: dict[str, np.ndarray]
    size: Future[int]

    def healed(self, price: float = 0.0, gradient: float = 0.0, skipped: int = 0) -> Healed:
        """Return the state, once its size is known; for the arguments see `Look`."""
        look = Look(self.share, self.size.result(), self.damage, price, gradient, skipped)
        return Healed(self.graph, self.plans, look)
