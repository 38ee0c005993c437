"""Plans on grids with the integers that this export's rounding makes, at any coarseness."""

from __future__ import annotations

import threading
from collections.abc import Container
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
        self._kept: dict[tuple[str, bool], dict[float, Plan]] = {}
        self._rounders = evaluator.findings.rounders
        self._lock = threading.Lock()

    def plan(self, name: str, plan: Plan, *, trellis: bool = False) -> Plan:
        """Return the plan with integers where another rounding than to nearest is at hand, else the plan.

        Args:
            name: of the weight.
            plan: its plan, with the step that is wanted.
            trellis: take the best paths through a trellis, where the weight's layout has them.
        """
        if not isinstance(plan, GridPlan) or not (trellis or name in self._covariances or name in self._counts):
            return plan
        kept = self._kept.setdefault((name, trellis), {})
        if plan.step not in kept:
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            rounder = self.rounder(name)
            matrix = rounder.quantize_on_trellis(plan.step) if trellis else rounder.quantize(plan.step)
            kept[plan.step] = plan if matrix is None else GridPlan.of_narrow(matrix)
            self._bound(rounder)
        return kept[plan.step]

    def damage(self, name: str, plan: GridPlan) -> float:
        """Predict the damage that a plan does, see `Rounder.damage`."""
        rounder = self.rounder(name)
        damage = rounder.damage(plan.quantize(self._weights[name]))
        self._bound(rounder)
        return damage

    def probe_plan(self, name: str, plan: GridPlan) -> Plan:
        """Return a weight's plan for inputs that were calibrated on: rows of tables have equal steps.

        Rows that these inputs never read would seem to cost nothing, and the table would get too coarse a step.
        """
        return plan if name in self._counts else self.plan(name, plan)

    def at(self, plans_at: PlansAt, trellis: Container[str] = ()) -> PlansAt:
        """Return a function that plans as another one does, with integers in what is on grids.

        Args:
            plans_at: plans all weights at a coarseness.
            trellis: names of weights that are put on a trellis.
        """

        def rounded_at(coarseness: float) -> dict[str, Plan]:
            plans = plans_at(coarseness)
            rounded = Parallel(n_jobs=self._jobs, prefer="threads")(
                delayed(self.plan)(name, plan, trellis=name in trellis) for name, plan in plans.items()
            )
            return dict(zip(plans, rounded, strict=True))

        return rounded_at

    def _bound(self, rounder: Rounder) -> None:
        """Let a rounder forget what it holds where all of them hold more than they may."""
        with self._lock:
            if sum(each.held_bytes for each in list(self._rounders.values())) > ROUNDERS_MAX:
                rounder.forget()

    def rounder(self, name: str) -> Rounder:
        """Return the rounder of a weight."""
        if name not in self._rounders:
            covariance, counts = self._covariances.get(name), self._counts.get(name)
            self._rounders[name] = rounder_of(self._weights[name], covariance, counts, self._effort)
        return self._rounders[name]
