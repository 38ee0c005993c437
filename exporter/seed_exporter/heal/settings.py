"""How a model is healed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import InputError

INPUTS_LEAST: Final = 16
"""Fewest inputs that are trained on: fewer are known by heart at once."""

_UNIT_RATE_MOST: Final = 0.25
"""Largest learning rate of matrices that a short run gets; larger ones weren't tried."""
_JUDGING: Final = 256
"""Most inputs that judge states: on a CPU, looks at all that an eighth of thousands is took as long as the steps."""


@dataclass(frozen=True)
class HealSettings:
    """How a model is healed.

    Attributes:
        steps: optimizer steps where no time is given; else it is trained until the time is over.
        batch: inputs of a step; on a GPU as many as it computes in little more time.
        unit_rate: learning rate of matrices, in their steps at the start, at least.
        travel: steps by which a weight must be able to move in a run, however short. A residual network of half a
            million weights at 245x keeps in 1,000 steps .76 with 30, .82 with 60, .87 with 120, .88 with 250, and in
            3,000 steps .86 with 120, .89 with 360, of .93.
        growth_rate: of the logarithms of steps, at least.
        growth: natural logarithms by which steps must be able to grow in a run, however short. Steps of a search are
            right from the beginning: with 2 in a run of 40 steps each changed them by a twentieth, and 10 of these made
            three times the damage of EfficientNet-lite0 at 16x; with 0, 8 of them took 4 % off it.
        factor_rate: of the logarithms of the rate's factors.
        vector_rate: of vectors, in their steps.
        norm_rate: of scales and shifts of batch norms.
        mixed: share of inputs that are mixed with another one.
        passes: times that each input is seen in a run from which on inputs are mixed, since they would be known by
            heart; 0 to mix in any case, also what is drawn afresh. What a small seed can hold is lost on mixtures: that
            network keeps .82 without and .72 with them.
        temperature: of scores that the original's are learned at.
        labelled: weight of the cross-entropy with labels.
        layers: weight of the distance to the original's layers, in relative squared errors.
        left_out: share of inputs that judge states and aren't trained on.
        descent: share of the run after which the size is to be what was asked for.
        fold: share of the run after which batch norms are folded and vectors rounded. A residual network of half a
            million weights at 245x, 1,000 steps: at .5 it keeps .59, at .75 .76, at .9 .73, of .93.
        cut: share of the run after which dead channels are cut out of what is trained, once batch norms are folded, and
            again after each eighth of the run; 1 for never. A run that starts from a search's plans is never cut.
        decay: share of the run after which learning rates fall.
        looks: looks at the real size and at the damage.
        estimate: batches on which statistics of batch norms are estimated before they are folded.
        mixed_precision: whether products are computed in bf16 on a GPU.
    """

    steps: int = 3000
    batch: int = 32
    unit_rate: float = 0.03
    travel: float = 250.0
    growth_rate: float = 2e-3
    growth: float = 2.0
    factor_rate: float = 1e-2
    vector_rate: float = 0.05
    norm_rate: float = 2e-3
    mixed: float = 0.5
    passes: float = 20.0
    temperature: float = 2.0
    labelled: float = 0.3
    layers: float = 0.0
    left_out: float = 0.125
    descent: float = 0.5
    fold: float = 0.75
    cut: float = 0.5
    decay: float = 0.5
    looks: int = 40
    estimate: int = 60
    mixed_precision: bool = True

    def judging(self, count: int) -> int:
        """Return how many of so many inputs judge states.

        Raises:
            InputError: there are too few.
        """
        check_count(count)
        return min(_JUDGING, max(8, round(self.left_out * count))) if count >= 2 * INPUTS_LEAST else 4

    def rates(self, steps: int) -> dict[str, float]:
        """Return the learning rates of what is trained in a run of so many steps, by kind."""
        return {
            "units": max(self.unit_rate, min(_UNIT_RATE_MOST, self.travel / steps)),
            "growth": max(self.growth_rate, self.growth / steps),
            "factors": max(self.factor_rate, 4 * self.growth / steps),
            "codes": 8 / math.log(2) * self.norm_rate, "vectors": self.vector_rate, "norms": self.norm_rate,
        }  # fmt: skip


SHORT: Final = HealSettings(unit_rate=0.007, travel=0.0, layers=10.0, growth=0.0)
"""How a model is healed that starts from a search's plans; docs/healing.md has what else was tried."""


def check_count(count: int) -> None:
    """Raise the error of too little data."""
    if count < INPUTS_LEAST:
        raise InputError(
            f"--heal needs at least {INPUTS_LEAST} inputs to train on beside those that outputs are judged on, and "
            f"there are {count}; give more, thousands if you have them: labels aren't needed"
        )
