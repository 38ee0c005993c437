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

from seed_runtime.codecs.encode.contexts import CLASS_STEP, CLASSES, ORIGIN, magnitude_classes

_LARGEST: Final = 63
"""Largest magnitude with a code length of its own; beyond it grows as that of an escape, slowly."""
_PRIOR: Final = 48.0
"""Symbols of a Laplace distribution that are added to each class's counts, so that rare ones have finite lengths."""
_LONGEST: Final = 14.0
"""Longest code [bit]."""


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
        counts = np.zeros((CLASSES, 2 * _LARGEST + 1))
        found = []
        for matrix in matrices:
            classes = magnitude_classes(np.abs(matrix))
            # A row of zeros has no class: one more nonzero element would give it the lowest.
            of_elements = classes.of_elements().astype(np.int32)
            flat = of_elements * counts.shape[1] + np.clip(matrix, -_LARGEST, _LARGEST) + _LARGEST
            live = (classes.rows > 0)[:, None] & (classes.cols > 0)[None]
            counts += np.bincount(flat[live], minlength=counts.size).reshape(counts.shape)
            found.append(of_elements.reshape(-1))
        # Signs are equally likely; noise in the counts of both would push weights to one side.
        counts = (counts + counts[:, ::-1]) / 2 + _PRIOR * _laplace()
        lengths = np.minimum(-np.log2(counts / counts.sum(axis=1, keepdims=True)), _LONGEST)
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


def _laplace() -> npt.NDArray[np.float64]:
    """Return the probabilities of integers in each class: rounded Laplace variables of the class's mean magnitude."""
    means = np.exp((np.arange(CLASSES) + ORIGIN) * CLASS_STEP)[:, None]
    decay = np.exp(-1 / np.maximum(means, 0.05))
    magnitudes = np.abs(np.arange(-_LARGEST, _LARGEST + 1))[None]
    tail = np.sqrt(decay) * (1 - decay) / 2 * decay ** np.maximum(magnitudes - 1, 0)
    weights = np.where(magnitudes == 0, 1 - np.sqrt(decay), np.maximum(tail, 2.0**-_LONGEST / 64))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
