"""Predicts yes-or-no decisions from what was decided before, in integers alone (SPEC.md, "Predicting a decision").

A decision has a context for each of several inputs. An input's opinion is the logarithm of the odds that its context
has seen; a weighted sum of the opinions gives the prediction, and weights move towards inputs that were right.
Decisions come in batches that don't depend on each other: counts of all take effect together, at the end of a step.

Source: Mahoney, "Adaptive weighing of context models for lossless data compression", Florida Institute of Technology
CS-2005-16; counts as in Krichevsky and Trofimov, "The performance of universal encoding" (1981).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

TOTAL: Final = 1 << 12
"""Probabilities are so many-th parts."""
COUNT_MAX: Final = 510
"""Most decisions that a context remembers: from there on its counts are halved."""
_ODDS_MAX: Final = 3071
"""Largest logarithm of odds, in 256ths of an octave: a probability of 1 / 4,096 or its complement."""
_WEIGHT_BITS: Final = 16
_RATE_BITS: Final = 12
"""How far the weights' gradient is shifted down: a rate of .0056 in natural logarithms."""
_BATCH_BITS: Final = 4
"""Logarithm of the batch from which on the weights move by the square root of its size, not by its size."""


class Mixer:
    """Predicts decisions and learns from them. Memory: 48 bytes a context, 16 of them while decisions are counted."""

    def __init__(self, contexts: int, inputs: int, kinds: int) -> None:
        """Begin without any knowledge: even odds, and inputs of equal weight.

        Args:
            contexts: of all inputs together.
            inputs: number of contexts of a decision.
            kinds: sets of weights.
        """
        self.counts = np.zeros(2 * contexts, np.int64)
        """Number of decisions under each context: those for no at 2 * context, those for yes behind it."""
        self._weights = np.full((kinds, inputs, 1), (6 << _WEIGHT_BITS) // (5 * inputs), np.int64)
        self._pending = np.zeros_like(self.counts)
        """Decisions since the end of the last step, as in `counts`."""
        self._index = self._odds = np.zeros((inputs, 0), np.int64)
        self._chances = np.zeros(0, np.int64)
        self._kind = 0

    def predict(self, index: I64, kind: int) -> I64:
        """Return the probability of yes in 4,096ths, 1 to 4,095, `(n,)`.

        Args:
            index: `(inputs, n)`, twice each decision's contexts.
            kind: set of weights.
        """
        logs, squash = _tables()
        counts = self.counts
        odds = logs.take(counts.take(index + 1))
        odds -= logs.take(counts.take(index))
        mixed = (odds * self._weights[kind]).sum(0)
        mixed >>= _WEIGHT_BITS
        np.maximum(mixed, -_ODDS_MAX, out=mixed)
        np.minimum(mixed, _ODDS_MAX, out=mixed)
        mixed += _ODDS_MAX
        self._index, self._odds, self._kind = index, odds, kind
        self._chances = squash.take(mixed)
        return self._chances

    def learn(self, decided: npt.NDArray[np.bool_]) -> None:
        """Take what the decisions were that were predicted last, `(n,)`."""
        yes = decided.astype(np.int64)
        # Counted at once: indices that wait for the end of a step take 480 bytes an element. 32-bit systems count no
        # int64.
        index = (self._index + yes).reshape(-1).astype(np.intp, copy=False)
        self._pending += np.bincount(index, minlength=self._pending.size)
        yes *= TOTAL
        yes -= self._chances
        gradient = (self._odds * yes).sum(1)
        gradient >>= _RATE_BITS + ((decided.size >> _BATCH_BITS).bit_length() >> 1)
        self._weights[self._kind, :, 0] += gradient

    def end_step(self) -> None:
        """Add the pending decisions to the counts."""
        self.counts += self._pending
        self._pending[:] = 0
        pairs = self.counts.reshape(-1, 2)
        while (full := np.flatnonzero(pairs[:, 0] + pairs[:, 1] > COUNT_MAX)).size:
            pairs[full] >>= 1


@lru_cache(maxsize=1)
def _tables() -> tuple[I64, I64]:
    """Return `logs` by count, and the probability by odds from -_ODDS_MAX on.

    `logs[n]` is floor(256 * log2(2 n + 1)); a probability p has odds of floor(256 * log2(p)) less that of 4,096 - p,
    and odds have the largest probability whose own odds don't exceed them, or 1.
    """
    logs = np.array([_log(2 * count + 1) for count in range(COUNT_MAX + 1)], np.int64)
    of_parts = np.array([_log(part) for part in range(1, TOTAL)], np.int64)
    own = of_parts - of_parts[::-1]
    squash = np.searchsorted(own, np.arange(-_ODDS_MAX, _ODDS_MAX + 1), side="right").clip(1, TOTAL - 1)
    return logs, squash.astype(np.int64)


def _log(number: int) -> int:
    """Compute floor(256 * log2(number)) exactly: the last power of two in number ** 256."""
    return int(number**256).bit_length() - 1
