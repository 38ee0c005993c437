"""Quantize matrices straight-through, with the bits that a discretised logistic says they take.

An integer q has the probability of the interval q - 1/2 to q + 1/2 under a logistic distribution around 0, whose scale
is exp(row + column + tap factor). The rate is taken at the weight that isn't rounded yet, so that it has a slope
everywhere. As a sum of softplus it is stable, and keeps a gradient however unlikely the integer.

Gradients are written by hand: compiled by torch with dynamic shapes they took 70 to 120 s before the first step.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

_LEAST, _LARGEST = -4.0, 6.0
"""Range of the logarithm of a scale."""
COLUMN_SHARE: Final = 0.25
"""Bits of a living column beside its symbols, as a share of those of a row: coded columns are many and alike."""


class QuantizedRate(torch.autograd.Function):
    """Matrices of one shape in, their integers and their bits out.

    Inputs:
        units: `(matrices, rows, columns, taps)`, weights in steps of their start.
        growth: `(matrices,)`, logarithm of how much the step has grown since.
        rows, columns, taps: `(matrices, ...)`, logarithms of the factors of a scale.
        structure: bits that a living row costs besides its symbols.

    Outputs:
        The integers as floats, straight-through; the bits of all symbols; the bits of living rows and columns; which
        rows have an integer that isn't 0, as 1 and 0.
    """

    @staticmethod
    def forward(
        context: Any, units: Tensor, growth: Tensor, rows: Tensor, columns: Tensor, taps: Tensor, structure: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the outputs."""
        steps, inverse = _in_steps(units, growth, rows, columns, taps)
        far = steps.abs()
        nats = functional.softplus((far - 0.5) * inverse) + functional.softplus(-(far + 0.5) * inverse)
        nats = nats - torch.log(-torch.expm1(-inverse))
        row_peaks, column_peaks = far.amax((2, 3)), far.amax((1, 3))
        living = row_peaks.clamp(max=1).sum() + COLUMN_SHARE * column_peaks.clamp(max=1).sum()
        context.save_for_backward(units, growth, rows, columns, taps)
        context.structure = structure
        rounded = steps.round()
        alive = (rounded != 0).any(3).any(2).to(units.dtype)
        context.mark_non_differentiable(alive)  # held beyond a step, it would hold all that step's gradients go through
        return rounded, nats.sum() / math.log(2), structure * living, alive

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of all inputs but the last one."""
        of_rounded, of_bits, of_living, _ = gradients
        steps, inverse = _in_steps(*context.saved_tensors)
        far = steps.abs()
        price = of_bits / math.log(2)
        low, high = torch.sigmoid((far - 0.5) * inverse), torch.sigmoid((far + 0.5) * inverse)
        of_far = (low + high - 1) * inverse * price
        of_scale = ((far + 0.5) * (1 - high) - (far - 0.5) * low + 1 / torch.expm1(inverse)) * inverse * price
        row_peaks, column_peaks = far.amax((2, 3), keepdim=True), far.amax((1, 3), keepdim=True)
        lone_rows = ((far >= row_peaks) & (row_peaks < 1)).to(far.dtype)
        lone_columns = ((far >= column_peaks) & (column_peaks < 1)).to(far.dtype)
        of_far = of_far + of_living * context.structure * (lone_rows + COLUMN_SHARE * lone_columns)
        of_steps = of_rounded + of_far * steps.sign()
        of_growth = -(of_steps * steps).sum((1, 2, 3))
        by_place = of_scale.sum(3)
        of_units = of_steps * torch.exp(-context.saved_tensors[1])[:, None, None, None]
        return of_units, of_growth, by_place.sum(2), by_place.sum(1), of_scale.sum((1, 2)), None


def _in_steps(units: Tensor, growth: Tensor, rows: Tensor, columns: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights in their steps as they are now, and one over the scale of each."""
    steps = units * torch.exp(-growth)[:, None, None, None]
    scale = rows[:, :, None, None] + columns[:, None, :, None] + taps[:, None, None, :]
    return steps, torch.exp(-scale.clamp(_LEAST, _LARGEST))
