"""Which values of a tier are kept: those that are better once they are rounded, also on what was held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from seed_runtime.backends import Array
from seed_runtime.tune.best_values import BestValues
from seed_runtime.tune.delta_limit import DeltaLimit
from seed_runtime.tune.joined import JoinedModel
from seed_runtime.tune.records import Score
from seed_runtime.tune.rounding import Inputs, Rounded, round_for_score
from seed_runtime.tune.state import State

Scoring = Callable[[Mapping[str, Array]], Score]
"""Computes the score with some values of tensors in place of the learned ones."""


class Acceptance:
    """Keeps a tier's values, or refuses them.

    Args:
        model: gets the values that are kept.
        limit: of a delta's size.
        metric: name of the score.
        notice: gets lines for the user.

    Attributes:
        inputs: of layers whose weights are rounded with regard to them.
    """

    def __init__(self, model: JoinedModel, limit: DeltaLimit, metric: str, notice: Callable[[str], None]) -> None:
        self._model, self._limit, self._metric, self._notice = model, limit, metric, notice
        self.inputs: Mapping[str, Inputs] = {}

    def accept(
        self, state: State, tier: str, best: BestValues, validation_score: Scoring, held_out_score: Scoring
    ) -> tuple[Score, dict[str, Array]]:
        """Keep a tier's best values where they are still better once they are rounded; return their score, and them.

        Args:
            state: of the run; has the scores so far, and gets the new ones.
            tier: its name.
            best: its best values.
            validation_score: scores values on the validation samples.
            held_out_score: scores them on what was held out.
        """
        assert state.after is not None
        assert state.validation is not None
        if not best.values:
            return state.after, {}
        validation, (values, steps) = round_for_score(
            self._model.untrained,
            best.values,
            best.score,
            validation_score,
            self.inputs,
            partial(self._fits, state, tier),
        )
        if not values:
            self._notice(self._limit.refusal(tier))
            return state.after, {}
        score = state.after if not validation > state.validation else held_out_score(values)
        if not score.value > state.after.value:
            return score, {}
        self._model.values.update(values)
        state.quantization_steps.update(steps)
        state.after, state.validation, state.mode = score, validation, tier
        return score, values

    def _fits(self, state: State, tier: str, rounded: Rounded) -> bool:
        """Return whether a delta of these tensors and those that earlier tiers changed is small enough."""
        values, steps = {**self._model.values, **rounded[0]}, {**state.quantization_steps, **rounded[1]}
        holes = self._model.hole_of
        by_hole = {holes[name]: value for name, value in values.items()}
        return self._limit.allows(tier, self._metric, by_hole, {holes[name]: step for name, step in steps.items()})
