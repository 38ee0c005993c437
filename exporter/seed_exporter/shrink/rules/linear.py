"""What all products with a constant matrix share: which inputs they read, and what is known of their outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seed_exporter.shrink.channels import Channels, Mask
from seed_exporter.shrink.registry import F64, Call


@dataclass(frozen=True, eq=False)
class Dense:
    """A product of a value with a constant matrix: `bias + matrix @ value` at each position.

    Attributes:
        read: whether an output has a weight for an input that isn't 0, `(outputs, inputs)`.
        matrix: sums of weights over all taps, for inputs that are the same at all of them, `(outputs, inputs)`.
        bias: of each output, NaN where unknown.
        inputs: the one value of each input channel, NaN where it varies, or may not be replaced by a bias.
    """

    read: Mask
    matrix: np.ndarray
    bias: F64
    inputs: F64

    def outputs(self) -> F64:
        """Compute the outputs that are constant, NaN for others."""
        constant = ~np.isnan(self.inputs)
        varies = self.read[:, ~constant].any(axis=1)
        return np.where(varies, np.nan, self.bias + self._sums(constant))

    def block_needed(self, c: Call, channels: Channels | None) -> None:
        """Let the inputs stay whose removal a bias can't make up for."""
        c.block(channels, np.isnan(self.inputs) & self.read.any(axis=0))

    def offset(self, removed: Mask) -> F64:
        """Compute what inputs add to each output that are removed."""
        return self._sums(removed & ~np.isnan(self.inputs))

    def _sums(self, chosen: Mask) -> F64:
        chosen = chosen & (self.inputs != 0)
        return self.matrix[:, chosen].astype(np.float64) @ self.inputs[chosen]


def vector_along(values: F64, rank: int, axis: int, dtype: np.dtype) -> np.ndarray:
    """Return values of channels as an array of `rank` that broadcasts along one axis."""
    shape = [1] * rank
    shape[axis] = -1
    return values.astype(dtype).reshape(shape)
