"""What all rounders share: integers of one weight for any step, and the damage that these do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Weight
from seed_runtime.codecs.encode.grid import INTEGER_MAX, QuantizedMatrix
from seed_runtime.codecs.symbols import STEP_LEAST

_STEP_MAX: Final = 2.0**96
"""Largest step that is tried: steps of rows and errors, some powers of two above it, are finite."""


class Rounder(ABC):
    """Makes integers of one weight, whatever step is asked for. What doesn't depend on the step is computed once."""

    def __init__(self, weight: Weight) -> None:
        """Hold the weight; what is computed of it waits for the first call."""
        self.weight = weight

    @abstractmethod
    def quantize(self, step: float) -> QuantizedMatrix:
        """Round the weight.

        Args:
            step: quantization step, in weight units; where inputs or rows have steps of their own, these have it as
                their geometric mean.

        Returns:
            Integers as `coded_view` lays the weight out.

        Raises:
            ValueError: the step is none that a decoder takes.
        """

    @abstractmethod
    def quantize_on_trellis(self, step: float) -> QuantizedMatrix | None:
        """Round the weight to the best paths through a trellis, whose integers take about as many bits.

        Args:
            step: see `quantize`; the matrix has half of it as its own.

        Returns:
            None where a path would meet elements that wait for errors of later ones.

        Raises:
            ValueError: see `quantize`.
        """

    @abstractmethod
    def damage(self, matrix: QuantizedMatrix) -> float:
        """Predict the squared error of the weight's outputs, summed over these, on average over positions.

        Args:
            matrix: what `quantize` returned, or other integers of this weight.
        """

    @abstractmethod
    def of(self, weight: Weight, rate: float) -> Rounder:
        """Return a rounder of another weight with the same uses, by what is known of their inputs already.

        Args:
            weight: of the same shape.
            rate: weight of a bit when an integer is chosen, in squared steps.
        """

    @property
    def is_calibrated(self) -> bool:
        """True if it rounds by something that was measured on inputs."""
        return False

    @property
    def held_bytes(self) -> int:
        """Size of what is held for the next step, and `forget` drops [B]."""
        return 0

    def forget(self) -> None:  # noqa: B027  most hold nothing
        """Drop what the next step can compute again."""

    def errors(self, matrix: QuantizedMatrix) -> npt.NDArray[np.float32]:
        """Compute what rounding changed, as `coded_view` lays the weight out."""
        return as_float32(self.weight) - matrix.values()


def checked(step: float) -> float:
    """Return a step that integers can be computed with, and steps some octaves above it.

    Raises:
        ValueError: it is too small or too large, or no number.
    """
    if not STEP_LEAST <= step <= _STEP_MAX:
        raise ValueError(f"a quantization step of {step} is too small or too large")
    return step


def in_steps(weights: npt.NDArray[np.float32], steps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return weights in their steps, as far as integers reach; `steps` broadcasts to them."""
    scaled = weights / steps
    return np.clip(scaled, -INTEGER_MAX, INTEGER_MAX, out=scaled)
