"""The coder's own rate as a differentiable function of weights that aren't rounded yet.

Between two integers the code length is interpolated, so that its slope is what the step from one to the other costs or
saves under the tables and classes that the coder would use now; both are renewed as the integers move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seed_exporter.codecs.code_lengths import MAGNITUDES, code_lengths, count_symbols, symbol_index
from seed_runtime.codecs.encode.contexts import CLASSES, magnitude_classes

_LARGEST: Final = MAGNITUDES - 1
"""Largest magnitude with a code length of its own."""
_LONGEST: Final = 14.0
"""Longest code [bit]: an integer that hasn't been seen in its class must not draw weights towards zero without end."""


class RateModel:
    """Code lengths of the integers of several matrices, which follow each other in one flat tensor.

    Args:
        device: where the lengths are looked up.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lengths = torch.zeros(CLASSES, 2 * _LARGEST + 1, device=device)
        self._classes = torch.zeros(0, dtype=torch.int32, device=device)

    def renew(self, matrices: Sequence[npt.NDArray[np.int32]]) -> None:
        """Derive classes and tables from integers as they are now.

        Args:
            matrices: `(rows, cols)` each, as the coder lays them out.
        """
        counts = np.zeros((CLASSES, MAGNITUDES), np.int64)
        found = []
        for matrix in matrices:
            magnitudes = np.abs(matrix)
            classes = magnitude_classes(magnitudes)
            # A row of zeros has no class: one more nonzero element would give it the lowest.
            of_elements = classes.of_elements()
            counts += count_symbols(symbol_index(magnitudes, of_elements)[classes.live()])
            found.append(of_elements.reshape(-1).astype(np.int32))
        lengths = np.minimum(code_lengths(counts), _LONGEST)
        lengths = np.concatenate([lengths[:, :0:-1], lengths], axis=1)
        self._lengths = torch.from_numpy(lengths.astype(np.float32)).to(self.device)
        self._classes = torch.from_numpy(np.concatenate(found)).to(self.device)

    def bits(self, units: Tensor) -> Tensor:
        """Return the code length of all elements together, differentiable [bit].

        Args:
            units: weights in steps, flat, not rounded.
        """
        total: Tensor = _Interpolated.apply(units, self._lengths, self._classes)
        return total

    def bits_of(self, integers: Tensor) -> float:
        """Compute the code length of integers [bit]."""
        index = integers.clamp(-_LARGEST, _LARGEST).to(torch.int64) + _LARGEST
        return float(self._lengths[self._classes.to(torch.int64), index].sum(dtype=torch.float64))


class _Interpolated(torch.autograd.Function):
    """Code lengths between integers, with the slope as their gradient; autograd would keep three more arrays."""

    @staticmethod
    def forward(context: Any, units: Tensor, lengths: Tensor, classes: Tensor) -> Tensor:
        inside = units.clamp(-_LARGEST, _LARGEST - 1e-3)
        low = inside.floor()
        index = (low + _LARGEST).to(torch.int64) + classes * lengths.shape[1]
        flat = lengths.reshape(-1)
        first = flat[index]
        slope = flat[index + 1] - first
        context.save_for_backward(slope)
        return (first + slope * (inside - low)).sum()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = context.saved_tensors
        return gradients[0] * slope, None, None
