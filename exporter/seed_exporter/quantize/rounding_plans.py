"""Plans on grids with the integers that this export's rounding makes, at any coarseness."""

from __future__ import annotations

import threading
from typing import Final

from joblib import Parallel, delayed

from seed_exporter.calibrate import COVARIANCES, ROW_COUNTS
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.rounding import Rounder, rounder_of
from seed_exporter.quantize.search import PlansAt

_KEPT: Final = 2
"""Steps of each weight whose integers are kept: the search comes back to the best, and to the last."""
ROUNDERS_MAX: Final = 256 << 20
"""Size of what rounders hold for their next step [B]; what is beyond is computed again, which takes as long as a step.

Feedback takes four bytes for each pair of inputs: as much as the weights for square layers, several times as much for
convolutions with many inputs.
"""


class RoundedPlans:
    """Rounds weights by the export's effort; what was rounded last is kept, as a search asks for it again.

    Memory: a byte or two an element for each step that is kept, and ROUNDERS_MAX for rounders. Weights of which
    nothing was measured are rounded to nearest when they are coded, and take none.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        """Round the weights of an evaluator's graph, by its statistics and effort."""
        effort, statistics = evaluator.effort, evaluator.statistics
        self._weights, self._jobs = evaluator.graph.weights, evaluator.encoder.jobs
        self._covariances = statistics[COVARIANCES] if effort.feedback else {}
        self._counts = statistics[ROW_COUNTS] if effort.table_rows else {}
        self._effort = effort
        self._kept: dict[str, dict[float, Plan]] = {}
        self._rounders = evaluator.findings.rounders
        self._lock = threading.Lock()

    def plan(self, name: str, plan: Plan) -> Plan:
        """Return the plan with integers where another rounding than to nearest is at hand, else the plan."""
        if not isinstance(plan, GridPlan) or not (name in self._covariances or name in self._counts):
            return plan
        kept = self._kept.setdefault(name, {})
        if plan.step not in kept:
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            rounder = self._rounder(name)
            kept[plan.step] = GridPlan.of_narrow(rounder.quantize(plan.step))
            self._bound(rounder)
        return kept[plan.step]

    def probe_plan(self, name: str, plan: GridPlan) -> Plan:
        """Return a weight's plan for inputs that were calibrated on: rows of tables have equal steps.

        Rows that these inputs never read would seem to cost nothing, and the table would get too coarse a step.
        """
        return plan if name in self._counts else self.plan(name, plan)

    def at(self, plans_at: PlansAt) -> PlansAt:
        """Return a function that plans as another one does, with integers in what is on grids."""

        def rounded_at(coarseness: float) -> dict[str, Plan]:
            plans = plans_at(coarseness)
            found = Parallel(n_jobs=self._jobs, prefer="threads")(
                delayed(self.plan)(name, plan) for name, plan in plans.items()
            )
            return dict(zip(plans, found, strict=True))

        return rounded_at

    def _bound(self, rounder: Rounder) -> None:
        """Let a rounder forget what it holds where all of them hold more than they may."""
        with self._lock:
            if sum(each.held_bytes for each in list(self._rounders.values())) > ROUNDERS_MAX:
                rounder.forget()

    def _rounder(self, name: str) -> Rounder:
        if name not in self._rounders:
            covariance, counts = self._covariances.get(name), self._counts.get(name)
            self._rounders[name] = rounder_of(self._weights[name], covariance, counts, self._effort)
        return self._rounders[name]
