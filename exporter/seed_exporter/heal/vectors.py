"""Vectors that are trained: biases, scales and shifts, rounded to a grid from some part of the run on."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from seed_exporter.graph.kinds import FLOATS
from seed_exporter.graph.matrix import as_float32, fits_a_stream
from seed_exporter.graph.model import Use, Weight
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.symbols import STEP_LEAST

_OF_DEVIATION: Final = 6.0
_OF_MEAN: Final = 24.0
"""A vector's step is its deviation over the first number, or its mean magnitude over the second one if that is more."""
_FINE: Final = 64
"""Parts of such a step that a fine vector is rounded to: with 8 EfficientNet-lite0 lost a third of what it kept at 16x
(KL .52 to .70 before any training); a search keeps such vectors as floats, which takes more."""
_SAFE: Final = frozenset(
    {("Conv", 2), ("ConvTranspose", 2), ("Gemm", 2), ("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1), ("Mul", 0)}
    | {("Mul", 1), ("BatchNormalization", 1), ("BatchNormalization", 2), ("PRelu", 1)}
    | {(op, index) for op in ("LayerNormalization", "InstanceNormalization", "GroupNormalization") for index in (1, 2)}
    | {(op, 1) for op in ("SimplifiedLayerNormalization", "RMSNormalization", "MatMul", "Conv", "Gemm")}
    | {("SkipLayerNormalization", index) for index in (2, 3, 4)}
    | {(op, 3) for op in ("LSTM", "GRU", "RNN")}
)
"""Inputs of nodes that any number suits; a variance or a divisor must stay above 0."""


def is_trainable(weight: Weight) -> bool:
    """Return whether a float vector can be trained: nothing reads it that needs its numbers in a range."""
    if weight.dtype.name not in FLOATS or not fits_a_stream(weight) or not weight.count:
        return False
    return bool(weight.uses) and all(_suits(use) for use in weight.uses) and step_of(as_float32(weight)) > 0


def step_of(values: np.ndarray) -> float:
    """Return the step of a vector's grid; 0 of one that can't have one."""
    numbers = values.astype(np.float64)
    step = float(np.float32(max(numbers.std() / _OF_DEVIATION, np.abs(numbers).mean() / _OF_MEAN)))
    return step if np.isfinite(step) and step >= STEP_LEAST else 0.0


class TrainedVector:
    """One vector in steps of its grid.

    Args:
        values: what it starts from.
        device: where it is.
        least: smallest step, for vectors that start as zeros.
        plan: grid to start on instead.
        fine: whether a grid that isn't given has smaller steps.
    """

    def __init__(
        self,
        values: np.ndarray,
        device: torch.device,
        least: float = 0.0,
        plan: QuantizedMatrix | None = None,
        fine: bool = False,
    ) -> None:
        step = step_of(values) if plan is None else plan.step
        self._parts = _FINE if fine and plan is None else 1
        self.step = max(step, float(np.float32(least)), STEP_LEAST)
        units = values.astype(np.float32).reshape(-1) / np.float32(self.step)
        self.units = torch.from_numpy(units).to(device).requires_grad_()

    def cut(self, units: Tensor) -> TrainedVector:
        """Return a vector on the same grid that goes on from some of the units."""
        other = copy.copy(self)
        other.units = units.detach().to(self.units).clone().requires_grad_()
        return other

    def values(self, rounded: bool) -> Tensor:
        """Return the vector, flat, with gradients; straight-through where it is rounded."""
        return (_Rounded.apply(self.units, self._parts) if rounded else self.units) * self.step

    def quantized(self, shape: tuple[int, int]) -> QuantizedMatrix:
        """Return the integers, as the coder takes them."""
        integers = (self.units.detach() * self._parts).round().to(torch.int32).cpu().numpy()
        return QuantizedMatrix(integers.reshape(shape), max(self.step / self._parts, STEP_LEAST))


class _Rounded(torch.autograd.Function):
    """Round to parts, straight-through, exactly: the usual sum with a detached difference is off by a last bit."""

    @staticmethod
    def forward(context: Any, units: Tensor, parts: int) -> Tensor:
        return (units * parts).round() / parts

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _suits(use: Use) -> bool:
    return (use.op, use.index) in _SAFE
