"""Compute the peak at a family's costliest point, a large batch of large inputs, from points that cost less.

What a run needs is a part that is the same for every batch, and a part for each input in it. Two batches of small
inputs tell the first part, and then one large input tells the second. Whether that holds for a model is checked at a
point in between, which is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seed_exporter.evaluate import free_dims
from seed_runtime.backends import Dims, TensorSpec

_TOLERANCE: Final = 0.05
"""Largest share by which the check may lie above what is computed for it."""
_NOISE_BYTES: Final = 1 << 20
"""Difference between two measurements of one point, beside that share [B]."""
_EXTRA: Final = 0.1
"""Share of the computed growth that is added, because errors of the small points are multiplied.

Of seven public models, what was computed without it lay between 0.9 and 1.03 of what was measured; the least for a
convolutional network, of which the first run of a session needs a ninth less than the second.
"""
_BATCHES_LEAST: Final = 4
"""Batches, where nothing else is free, from which on the largest is computed: two to compute, and one to check."""


@dataclass(frozen=True)
class Growth:
    """How the peak at a batch of `many` follows from three other points, which stand here by their numbers."""

    many: int
    one: int
    """The same sizes with a batch of `few`."""
    low: int
    high: int
    """Batches of `few` and of `more`, both of the same other sizes."""
    few: int
    more: int

    def peak(self, peaks: Mapping[int, int]) -> int:
        """Return the peak [B]; KeyError where one that it needs is missing."""
        each = (peaks[self.high] - peaks[self.low]) / (self.more - self.few)
        shared = peaks[self.low] - self.few * each
        return int(shared + self.many * (peaks[self.one] - shared) / self.few)

    def bound(self, peaks: Mapping[int, int]) -> int:
        """Return a bound of the peak [B]; KeyError where one that it needs is missing."""
        peak = max(self.peak(peaks), peaks[self.one])
        return int(peak + (peak - peaks[self.one]) * _EXTRA)


@dataclass(frozen=True)
class Plan:
    """How one point is computed, and what must be measured for it."""

    computed: Growth
    """How the family's last point is computed."""
    check: Growth
    checked: int
    """Number of the point that the check computes, and that the first mode measures."""
    probe: Dims | None
    """A point that is measured for the others' sake; its number follows the family's last."""
    needed: frozenset[int]
    """Numbers of the points that every mode must measure."""

    def holds(self, peaks: Mapping[int, int]) -> bool:
        """Return whether these measurements suffice, and the check is what the others make it."""
        try:
            found = self.check.peak(peaks)
            self.computed.peak(peaks)
            return peaks[self.checked] <= found * (1 + _TOLERANCE) + _NOISE_BYTES
        except KeyError:
            return False


def plan_growth(inputs: Sequence[TensorSpec], points: Sequence[Dims]) -> Plan | None:
    """Find how the last of these points, which are sorted by size, may be computed; None where it can't."""
    batch = free_dims.with_role(free_dims.roles(inputs), "batch")
    # Sums may depend on the batch, and only a single size of all batches is computed with.
    if not batch or free_dims.sums(inputs) or any(len({dims[key] for key in batch}) > 1 for dims in points):
        return None
    places = [(dims[batch[0]], tuple(dims[key] for key in dims if key not in batch)) for dims in points]
    number = {place: index for index, place in enumerate(places)}
    (many, rest), few = places[-1], places[0][0]
    last = len(places) - 1
    if len({place[1] for place in places}) == 1:
        if len(places) < _BATCHES_LEAST:
            return None
        second, before = places[1][0], places[-2][0]
        return Plan(
            computed=Growth(many, 0, 0, last - 1, few, before),
            check=Growth(before, 0, 0, 1, few, second),
            checked=last - 1,
            probe=None,
            needed=frozenset({0, last - 1}),
        )
    ones = [place[1] for place in places if place[0] == few]
    is_family = len(ones) > 2 and rest in ones[2:] and (many, ones[1]) in number and (many, ones[0]) not in number
    if many == few or not is_family:
        return None
    smallest, second = number[few, ones[0]], number[few, ones[1]]
    return Plan(
        computed=Growth(many, number[few, rest], smallest, last + 1, few, many),
        check=Growth(many, second, smallest, last + 1, few, many),
        checked=number[many, ones[1]],
        probe=points[smallest] | dict.fromkeys(batch, many),
        needed=frozenset({number[few, each] for each in ones} | {last + 1}),
    )
