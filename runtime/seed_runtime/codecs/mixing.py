"""Predicts yes-or-no decisions from what was decided before, in integers alone (SPEC.md, "Predicting a decision").

A decision has a context for each of several inputs. An input's opinion is the logarithm of the odds that its context
has seen; a weighted sum of the opinions gives the prediction, and weights move towards inputs that were right.
Decisions come in batches that don't depend on each other: counts of all take effect together.

Source: Mahoney, "Adaptive weighing of context models for lossless data compression", Florida Institute of Technology
CS-2005-16; counts as in Krichevsky and Trofimov, "The performance of universal encoding" (1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import I64

Bools = npt.NDArray[np.bool_]
Few = Sequence[tuple[int, ...]]
"""Opinions of each of a few decisions."""

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


class Contexts:
    """What was decided under each context of some inputs. Memory: 16 bytes a context."""

    def __init__(self, contexts: int) -> None:
        """Begin without any knowledge: even odds.

        Args:
            contexts: of all inputs together.
        """
        self.counts = np.zeros(2 * contexts, np.int64)
        """Number of decisions under each context: those for no at 2 * context, those for yes behind it."""
        self._logs = _tables()[0]

    def opinions(self, index: I64) -> I64:
        """Return the logarithms of the odds of yes, in 256ths of an octave, `(inputs, n)`.

        Args:
            index: `(inputs, n)`, twice each decision's contexts.
        """
        if index.size < self.counts.size // 2:
            odds = self._logs.take(self.counts.take(index + 1))
            odds -= self._logs.take(self.counts.take(index))
            return odds
        # There are fewer contexts than inputs: those of all are computed once.
        logs = self._logs.take(self.counts)
        return np.subtract(logs[1:], logs[:-1]).take(index)

    def count(self, index: I64, decided: Bools) -> None:
        """Count decisions, `(n,)`, whose contexts are those of `index`."""
        # 32-bit systems count no int64.
        places = (index + decided).reshape(-1).astype(np.intp, copy=False)
        self.counts += np.bincount(places, minlength=self.counts.size)
        self._halve()

    def count_several(self, index: I64, no: I64, yes: I64) -> None:
        """Count several decisions under the contexts of `index`: `no` and `yes` of them, `(n,)`."""
        index = index.reshape(-1)
        inputs = index.size // no.size
        # Flat: of NumPy 2.4, ufunc.at adds wrong values where it has to broadcast them.
        np.add.at(self.counts, np.concatenate((index, index + 1)), np.concatenate([no] * inputs + [yes] * inputs))
        self._halve()

    def _halve(self) -> None:
        """Halve counts that are too large."""
        pairs = self.counts.reshape(-1, 2)
        while (full := (pairs[:, 0] + pairs[:, 1] > COUNT_MAX).nonzero()[0]).size:
            pairs[full] >>= 1


class Mixer:
    """A set of weights of inputs, which predicts decisions and learns from them.

    A wave of a small stream has one or two decisions of most magnitudes: NumPy's calls took two thirds of their time.
    """

    def __init__(self, inputs: int) -> None:
        """Begin with inputs of equal weight."""
        self._weights = [(6 << _WEIGHT_BITS) // (5 * inputs)] * inputs
        self._squash, self._squash_list = _tables()[1:]

    def predict(self, opinions: I64) -> I64:
        """Return the probability of yes in 4,096ths, 1 to 4,095, `(n,)`.

        Args:
            opinions: `(inputs, n)`.
        """
        mixed = np.array(self._weights, np.int64) @ opinions
        mixed >>= _WEIGHT_BITS
        np.maximum(mixed, -_ODDS_MAX, out=mixed)
        np.minimum(mixed, _ODDS_MAX, out=mixed)
        return self._squash.take(mixed, mode="wrap")

    def learn(self, opinions: I64, chances: I64, decided: Bools) -> None:
        """Take what the decisions were that these opinions, together, gave these chances."""
        wrong = np.multiply(decided, TOTAL, dtype=np.int64)
        wrong -= chances
        self._move((opinions @ wrong).tolist(), wrong.size)

    def predict_few(self, opinions: Few) -> list[int]:
        """Do as `predict` does, without NumPy, whose calls take longer than the work where decisions are few."""
        weights, squash, chances = self._weights, self._squash_list, []
        for own in opinions:
            mixed = sum(map(mul, weights, own)) >> _WEIGHT_BITS
            # Twice as fast as min and max.
            chances.append(squash[mixed if -_ODDS_MAX < mixed < _ODDS_MAX else _ODDS_MAX if mixed > 0 else -_ODDS_MAX])
        return chances

    def learn_few(self, opinions: Few, chances: Sequence[int], decided: Sequence[bool]) -> None:
        """Do as `learn` does."""
        wrong = [TOTAL * yes - chance for yes, chance in zip(decided, chances, strict=True)]
        if len(wrong) == 1:
            self._move([each * wrong[0] for each in opinions[0]], 1)
        else:
            self._move([sum(map(mul, each, wrong)) for each in zip(*opinions, strict=True)], len(wrong))

    def _move(self, gradient: Sequence[int], decisions: int) -> None:
        shift = _RATE_BITS + ((decisions >> _BATCH_BITS).bit_length() >> 1)
        self._weights = [weight + (own >> shift) for weight, own in zip(self._weights, gradient, strict=True)]


@lru_cache(maxsize=1)
def _tables() -> tuple[I64, I64, list[int]]:
    """Return `logs` by count, and the probability by odds, as an array and as a list; negative odds from the end.

    `logs[n]` is floor(256 * log2(2 n + 1)); a probability p has odds of floor(256 * log2(p)) less that of 4,096 - p,
    and odds have the largest probability whose own odds don't exceed them, or 1.
    """
    own = [0]
    for number in range(1, TOTAL):
        # Twice a number has an octave more, which takes less time than powers.
        own.append(_log(number) if number % 2 else own[number // 2] + 256)
    of_numbers = np.array(own, np.int64)
    of_parts = of_numbers[1:] - of_numbers[:0:-1]
    odds = np.concatenate((np.arange(_ODDS_MAX + 1), np.arange(-_ODDS_MAX, 0)))
    squash = np.searchsorted(of_parts, odds, side="right").clip(1, TOTAL - 1).astype(np.int64)
    return of_numbers[1 : 2 * COUNT_MAX + 2 : 2].copy(), squash, squash.tolist()


def _log(number: int) -> int:
    """Compute floor(256 * log2(number)) exactly: the last power of two in number ** 256."""
    return int(number**256).bit_length() - 1
