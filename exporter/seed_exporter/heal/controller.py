"""The price of a bit, moved so that the size of the seed falls exponentially to its goal and stays there.

A price that grows for as long as there are too many bits is far too high once there aren't: of short runs some ended at
half of the size that was asked for. So it is moved by where the bits will be, and by a limited factor for each part of
the run, however few steps that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

AHEAD: Final = 0.05
"""Share of the run by which bits are foreseen."""
GAIN: Final = 2.0
"""Change of the price's logarithm, as a share of its largest, for each natural logarithm that the bits are off.

At 8 the price swung by 3.3 times in the last third of a simulated run whose weights follow within a two-hundredth of
it, at 2 by 1.2; at 8 damage of ResNet-50 at 1,855x rose three times, from .033 to .15, as its bytes swung by a tenth.
A residual network of a million weights on 64 classes, at 470x, won back .21 to .10 (1 - cosine) after the fold at 2.
"""
DRIFT: Final = 1000.0
"""Change of the price's own drift in a whole run, in natural logarithms, for each natural logarithm of the error.

While learning rates fall, fewer weights jitter, and the price has to fall by 10 to 20 times to hold the bytes. One that
is moved by the error alone lags behind: that residual network ended 8 % below its goal.
"""
_DRIFT_ERROR: Final = 0.03
"""Largest error that drift is learned from: at the end of the descent it is larger for a while."""
FASTEST: Final = 100.0
"""Largest change of the price's logarithm over a whole run: a factor of 2.7 in a hundredth of it."""
_RANGE: Final = 100.0
"""Largest price, as a multiple of that by theory, and one over the least: beyond, weights move no faster, and it takes
long to come back."""
_MEMORY: Final = 0.015
"""Share of the run over which the slope of the bits is averaged."""
_PRICE_LEAST: Final = 0.01
"""Least share of the price by theory that a measured one has: one batch may say that coarser steps do no damage."""


def theoretical_price(loss: float, count: int) -> float:
    """Return the price of a bit where a loss goes with the square of the steps of so many elements."""
    return 2 * math.log(2) * loss / max(1, count)


def first_price(loss: Tensor, bits: Tensor, steps: Sequence[Tensor], count: int) -> float:
    """Return the price at which quantization steps, all coarsened by the same factor, neither lose nor gain.

    Single weights have far larger gradients than all of them together: a price by their mean magnitude let the damage
    rise before anything was learned, and one by the gradients' norms was 100 times too high.

    Args:
        loss: of the first batch; most of it comes from rounding, and goes with the square of the steps.
        bits: of all matrices.
        steps: logarithms of the matrices' steps.
        count: number of elements of all matrices.
    """

    def total(value: Tensor) -> float:
        gradients = torch.autograd.grad(value, steps, retain_graph=True, allow_unused=True)
        return sum(float(each.sum()) for each in gradients if each is not None)

    by_theory = theoretical_price(float(loss.detach()), count)
    measured = total(loss) / max(-total(bits), 1e-12)
    return min(max(measured, _PRICE_LEAST * by_theory), by_theory)


class Controller:
    """Moves the price.

    Args:
        first: bits at the start.
        goal: bits to reach.
        descent: share of the run after which they are to be reached.
        decay: share of the run after which learning rates fall to nothing: what moves slowly is steered slowly.
    """

    def __init__(self, first: float, goal: float, descent: float, decay: float = 1.0) -> None:
        self.first, self.goal, self.descent, self.decay = max(first, 1.0), max(goal, 1.0), descent, decay
        self.price = 0.0
        """Of a bit, in units of the loss."""
        self._least, self._highest = 0.0, math.inf
        self.offset = 0.0
        """Bits of the real seed beyond those that the rate says."""
        self._share: float | None = None
        self._level = self._slope = self._drift = 0.0

    def start(self, price: float, by_theory: float) -> None:
        """Set the first price, and the range that it stays in.

        Args:
            price: the first price.
            by_theory: that of `theoretical_price`.
        """
        self.price, self._least, self._highest = price, by_theory / _RANGE, by_theory * _RANGE

    def state(self) -> list[float]:
        """Return what a run that is continued has to know."""
        return [self.first, self.price, self._least, self._highest, self._drift]

    def restore(self, state: Sequence[float]) -> None:
        """Go on from a state."""
        self.first, self.price, self._least, self._highest, self._drift = state

    def wanted(self, share: float) -> float:
        """Return the bits that are wanted at a share of the run."""
        if self.goal >= self.first:
            return self.goal
        return self.first * (self.goal / self.first) ** min(1.0, share / self.descent)

    def correct(self, real: float, estimated: float) -> None:
        """Learn the size that the coder gives [bit]."""
        offset = real - estimated
        # The jump of the measure is no slope of the bits.
        self._level += math.log(max(estimated + offset, 1.0)) - math.log(max(estimated + self.offset, 1.0))
        self.offset = offset

    def move(self, estimated: float, share: float) -> float:
        """Return the price after a look at the bits that the rate says."""
        level = math.log(max(estimated + self.offset, 1.0))
        if self._share is not None and share > self._share:
            passed = share - self._share
            weight = 1 - math.exp(-passed / _MEMORY)
            self._slope += weight * ((level - self._level) / passed - self._slope)
            error = level + self._slope * AHEAD - math.log(self.wanted(share + AHEAD))
            fastest = FASTEST * (min(1.0, (1 - share) / (1 - self.decay)) if self.decay < 1 else 1.0)
            passed = min(passed, 0.02)
            if share > self.descent:
                self._drift += DRIFT * max(-_DRIFT_ERROR, min(_DRIFT_ERROR, error)) * passed
            change = max(-1.0, min(1.0, GAIN * error)) * fastest + self._drift
            self.price = min(max(self.price * math.exp(change * passed), self._least), self._highest)
        self._share, self._level = share, level
        return self.price
