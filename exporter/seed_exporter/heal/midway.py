"""When dead channels are cut out of a healing, and what a checkpoint must know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from seed_exporter.codecs.base import Plan
from seed_exporter.heal.cuts import CutDead, Follow, follow_moments
from seed_exporter.heal.loop import Moments
from seed_exporter.heal.resuming import cut_again
from seed_exporter.heal.student_graph import StudentGraph

_EVERY: Final = 0.125
"""Share of the run after which what died since a cut is cut as well."""


class MidwayCuts:
    """Cuts a student from some part of its run on, once its vectors are rounded.

    Args:
        first: share of the run from which on it is cut; 1 for never.
        cut_dead: cuts a graph and its plans; None to cut nothing.

    Attributes:
        due: share of the run from which on it is cut the next time.
        before: the states that were cut, matrices rounded: what a new student must be brought to before it has the
            shapes of this one.
    """

    def __init__(self, first: float, cut_dead: CutDead | None) -> None:
        self._cut_dead = cut_dead
        self.due, self.before = first, list[dict[str, np.ndarray]]()
        self._follow: Follow | None = None

    def is_due(self, share: float, student: StudentGraph) -> bool:
        """Return whether a student is to be cut now."""
        return self._cut_dead is not None and self.due <= share < 1 and student.rounds_vectors

    def cut(
        self,
        share: float,
        student: StudentGraph,
        others: Mapping[str, Plan],
        saved: bool,
        say: Callable[[str], None],
    ) -> Mapping[str, Plan] | None:
        """Cut a student; return the plans of all weights that are left, None where nothing was cut.

        A cut that fails, as in a full memory, costs no more than the time that it would have saved.

        Args:
            share: of the run.
            student: what is cut.
            others: plans of what isn't trained.
            saved: whether there will be checkpoints.
            say: is told of a cut that failed.
        """
        assert self._cut_dead is not None  # is_due
        self.due = share + _EVERY
        try:
            before = student.rounded_snapshot() if saved else {}
            found = student.cut(others, self._cut_dead)
        except (RuntimeError, ValueError, MemoryError) as error:
            self.due = 1.0
            say(f"what is dead stays in what is trained, which takes longer ({error}); report this, with the model")
            return None
        if found is None:
            return None
        self._follow = found.follow
        if saved:
            self.before.append(before)
        return found.plans

    def again(
        self, before: dict[str, np.ndarray], student: StudentGraph, others: Mapping[str, Plan]
    ) -> Mapping[str, Plan]:
        """Cut a new student once more as a checkpoint's was; return the plans of all weights that are left.

        Raises:
            InputError: the checkpoint is of another graph.
        """
        self.before.append(before)
        if self._cut_dead is None:
            return others
        return cut_again(student, before, others, self._cut_dead)

    def moments(self, state: Moments) -> Moments:
        """Return what is left of the optimizer's moments, if there was a cut since this was asked last."""
        follow, self._follow = self._follow, None
        return state if follow is None else follow_moments(state, follow)
