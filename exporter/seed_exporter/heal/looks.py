"""What a training was seen to reach on its way, for progress and reports; without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """One look at a training.

    Attributes:
        share: part of the run that was done.
        size: of the whole seed [B].
        damage: by the metric `auto`, on inputs that aren't trained on.
        price: of a bit by then, in units of the loss; 0 before the first step.
        gradient: mean norm of the gradients since the look before.
        skipped: steps so far that were left out because a gradient was NaN or infinite.
    """

    share: float
    size: int
    damage: float
    price: float = 0.0
    gradient: float = 0.0
    skipped: int = 0


@dataclass(frozen=True)
class Training:
    """A training that goes on, as far as is known.

    Attributes:
        model_id: of the model.
        goal: largest size [B].
        where: it is trained, in words.
        looks: so far.
        steps: optimizer steps of the whole run, about.
        step_seconds: time of a step [s].
        seconds_left: until its end, about [s].
    """

    model_id: str
    goal: int
    where: str
    looks: tuple[Look, ...]
    steps: int
    step_seconds: float
    seconds_left: float

    @property
    def share(self) -> float:
        """Part of the run that was done at the last look."""
        return self.looks[-1].share if self.looks else 0.0

    @property
    def best(self) -> Look | None:
        """The look that would be written now: the least damage that keeps the goal, else the smallest size."""
        kept = [look for look in self.looks if look.size <= self.goal]
        if kept:
            return min(kept, key=lambda look: look.damage)
        return min(self.looks, key=lambda look: look.size, default=None)
