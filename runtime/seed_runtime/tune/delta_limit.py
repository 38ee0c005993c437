"""How large a delta may be: measured while it can still be rounded more coarsely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.codecs import BaseWeights
from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.encode.matrix import entropy_bits
from seed_runtime.delta import measure_delta
from seed_runtime.format.writer import front
from seed_runtime.seed import Seed
from seed_runtime.tune.records import FULL, Settings

DELTA_LEAST: Final = 4000
"""Bytes that a delta may always take [B]."""
DELTA_SHARE: Final = 0.1
"""Share of its base that a delta may take where that is more."""
CODED_MOST: Final = 1 << 16
"""Elements up to which a delta is coded to learn its size; beyond, coding takes memory that a session holds now."""


class DeltaLimit:
    """Bounds the deltas of a run.

    Args:
        seed: what is tuned.
        weights: of the seed.
        settings: of the run.
    """

    def __init__(self, seed: Seed, weights: BaseWeights, settings: Settings) -> None:
        self._seed, self._weights, self._asked = seed, weights, settings.delta_size
        self._base_bytes = len(front(seed.header)) + seed.header.body_size

    def largest(self, tier: str) -> int | None:
        """Return the most bytes that a delta may take after a tier; None for any number."""
        if self._asked is not None or tier == FULL:
            return self._asked
        return max(DELTA_LEAST, int(DELTA_SHARE * self._base_bytes))

    def refusal(self, tier: str) -> str:
        """Return what the user is told where no delta of a tier is small enough."""
        return f"{tier} is left out: its delta takes more than {self.largest(tier):,} bytes; see --delta-size"

    def allows(self, tier: str, metric: str, values: Mapping[int, Array], steps: Mapping[int, float]) -> bool:
        """Return whether a delta is small enough.

        Args:
            tier: the last one of those that made it.
            metric: name of the score.
            values: of all tensors that changed, by the number of their hole.
            steps: their quantization steps.
        """
        largest = self.largest(tier)
        if largest is None:
            return True
        if sum(value.size for value in values.values()) > CODED_MOST:
            return self._entropy(values, steps) <= largest
        # Scores take as many bytes whatever they are, and another golden sample of the same outputs about as many.
        golden = self._seed.golden
        size = measure_delta(
            self._seed,
            self._weights,
            values,
            lambda hole, difference: steps[hole],
            mode=tier,
            scores=(metric, 0.0, 0.0),
            golden=None if golden is None else golden.pack(),
        )
        return size <= largest

    def _entropy(self, values: Mapping[int, Array], steps: Mapping[int, float]) -> float:
        """Return the entropy of all integers, those of each tensor for themselves [B]; a window at a time."""
        bits = 0.0
        for number, value in values.items():
            counts, flat = np.zeros((1, 256), np.int64), value.reshape(-1)
            for start in range(0, flat.size, WINDOW):
                stop = min(start + WINDOW, flat.size)
                moved = flat[start:stop] - self._weights.read(number, start, stop)
                integers = np.clip(np.rint(moved / np.float32(steps[number])), -128, 127).astype(np.int8)
                counts[0] += np.bincount(integers.view(np.uint8), minlength=256)
            bits += entropy_bits(counts)
        return bits / 8
