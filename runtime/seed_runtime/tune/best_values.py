"""The best values of a tier's tensors so far."""

from __future__ import annotations

from collections.abc import Mapping

from seed_runtime.backends import Array
from seed_runtime.tune.records import Score


class BestValues:
    """The best values of some tensors that a tier has seen, and their score.

    Args:
        score: of the values that the tier began with.

    Attributes:
        steps: steps of gradients that the tier has taken.
        micro_batch: samples that it computes at once.
    """

    def __init__(self, score: Score) -> None:
        self.score, self.is_better = score, False
        self.steps = self.micro_batch = 0
        self._values = dict[str, Array]()

    def replace(self, score: Score, values: Mapping[str, Array]) -> None:
        """Put other values and their score in place of these; no values stand for those that the tier began with."""
        self.score, self.is_better, self._values = score, bool(values), dict(values)

    @property
    def values(self) -> Mapping[str, Array]:
        """The values; none while nothing was better than what the tier began with."""
        return self._values if self.is_better else {}

    def reserve(self, values: Mapping[str, Array]) -> None:
        """Allocate the memory that values will need."""
        self._values = {name: value.copy() for name, value in values.items()}

    def update(self, score: Score, values: Mapping[str, Array]) -> bool:
        """Copy values if their score is better; return whether it was."""
        if not score > self.score:
            return False
        self.score, self.is_better = score, True
        if self._values.keys() != values.keys():
            self.reserve(values)
        for name, value in values.items():
            self._values[name][...] = value
        return True
