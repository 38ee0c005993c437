"""Rounders: a weight's integers for any step, by what is known of the inputs that it meets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.graph.linear import LinearView, linear_view
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Weight
from seed_exporter.quantize.effort import Effort
from seed_exporter.quantize.rounding.cross_validation import EXPONENTS, Validated, validate
from seed_exporter.quantize.rounding.feedback import factor, round_with_feedback
from seed_exporter.quantize.rounding.layout import InputSteps, equal_steps, expressible, input_steps
from seed_runtime.codecs.encode.grid import QuantizedMatrix, round_to_nearest
from seed_runtime.codecs.symbols import STEP_LEAST

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_STEP_MAX: Final = 2.0**96
"""Largest step that is tried: rows' steps and errors, some powers of two above it, are finite."""


class Rounder(ABC):
    """Makes integers of one weight, whatever step is asked for. What doesn't depend on the step is computed once."""

    def __init__(self, weight: Weight) -> None:
        """Hold the weight; what is computed of it waits for the first call."""
        self.weight = weight

    @abstractmethod
    def quantize(self, step: float) -> QuantizedMatrix:
        """Round the weight.

        Args:
            step: quantization step, in weight units; where rows have steps of their own, their geometric mean.

        Returns:
            Integers as `coded_view` lays the weight out.

        Raises:
            ValueError: the step is none that a decoder takes.
        """

    @abstractmethod
    def damage(self, matrix: QuantizedMatrix) -> float:
        """Predict the squared error of the weight's outputs, summed over these, on average over positions.

        Args:
            matrix: what `quantize` returned, or other integers of this weight.
        """

    def errors(self, matrix: QuantizedMatrix) -> F32:
        """Compute what rounding changed, as `coded_view` lays the weight out."""
        return as_float32(self.weight) - matrix.values()


class NearestRounder(Rounder):
    """Rounds to nearest. Nothing is known of inputs: the damage is that under uncorrelated ones of variance 1."""

    def quantize(self, step: float) -> QuantizedMatrix:
        """Round each weight to the nearest multiple of `step`."""
        return round_to_nearest(as_float32(self.weight), _checked(step))

    def damage(self, matrix: QuantizedMatrix) -> float:
        """Compute the squared error of all weights together."""
        return float(np.square(self.errors(matrix), dtype=np.float64).sum())


class FeedbackRounder(Rounder):
    """Rounds with error feedback, and with steps of inputs, as far as inputs that were left out confirm a gain."""

    def __init__(self, weight: Weight, view: LinearView, covariance: Covariance, *, steps: bool) -> None:
        """Hold the weight and the moments of its inputs.

        Args:
            weight: what is rounded.
            view: the weight as a linear map.
            covariance: moments of the view's inputs.
            steps: inputs may have steps of their own.
        """
        super().__init__(weight)
        self.view, self.covariance, self._steps = view, covariance, steps

    def quantize(self, step: float) -> QuantizedMatrix:
        """Round input by input; to nearest where feedback promises nothing."""
        if self.validated is None or (self.validated.damping is None and not self.validated.exponent):
            return round_to_nearest(as_float32(self.weight), _checked(step))
        steps = self._prepared.steps
        least = _checked(step * steps.least)
        integers = round_with_feedback(self._prepared.weights, steps.above(least), self._prepared.feedback)
        coded = self.view.stored_of(integers.transpose(0, 2, 1)).reshape(coded_view(self.weight))
        return QuantizedMatrix(coded, least, steps.row_steps)

    def damage(self, matrix: QuantizedMatrix) -> float:
        """Compute the damage, that of feedback as it is on inputs that were left out.

        Errors that are fitted to the moments do less damage under these than on other inputs.
        """
        errors, validated = self.view.maps_of(self.errors(matrix)), self.validated
        if validated is None or validated.damping is None:
            moved = np.matmul(errors, self.covariance.total())
            return float(np.einsum("goi,goi->", moved, errors, dtype=np.float64))
        differences = np.matmul(errors, self._prepared.feedback.transpose(0, 2, 1))
        return float(np.einsum("goi,gi->", np.square(differences, dtype=np.float64), validated.pivots))

    @cached_property
    def validated(self) -> Validated | None:
        """Damping, pivots and steps that left-out inputs confirm; None where the moments say nothing."""
        steps = self._steps and expressible(self.view, coded_view(self.weight))
        return validate(self.covariance, EXPONENTS if steps else EXPONENTS[:1])

    @cached_property
    def _prepared(self) -> _Prepared:
        validated = self.validated
        assert validated is not None
        groups, _, inputs = self.view.shape
        steps = equal_steps(self.view)
        if validated.exponent:
            steps = input_steps(self.view, coded_view(self.weight), validated.squared_steps())
        weights = self.view.maps_of(as_float32(self.weight)).transpose(0, 2, 1)
        feedback = np.broadcast_to(np.eye(inputs, dtype=np.float32), (groups, inputs, inputs))
        if validated.damping is not None:
            feedback, _ = factor(self.covariance.total(), validated.damping)
        return _Prepared(np.ascontiguousarray(weights), feedback, steps)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What rounding needs at any step. Equal only to itself.

    Attributes:
        weights: `(groups, inputs, outputs)`.
        feedback: see `feedback.factor`; the identity where only steps of inputs promise a gain.
        steps: of the inputs.
    """

    weights: F32
    feedback: F32
    steps: InputSteps


def rounder_of(weight: Weight, covariance: Covariance | None, row_counts: I64 | None, effort: Effort) -> Rounder:
    """Return the rounder of a weight.

    Args:
        weight: a weight of a float type, whose values are finite.
        covariance: moments of its inputs, by its `linear_view`; None where none were measured.
        row_counts: `(parts, rows)`, how often each row of a table was read; None where it is no table.
        effort: what is worth its time.
    """
    view = linear_view(weight)
    if effort.feedback and covariance is not None and view is not None:
        groups, _, inputs = view.shape
        if covariance.moments.shape[1:] != (groups, inputs, inputs):
            raise ValueError(f"{weight.name}: moments {covariance.moments.shape} don't fit {groups} x {inputs} inputs")
        return FeedbackRounder(weight, view, covariance, steps=effort.input_steps)
    return NearestRounder(weight)


def _checked(step: float) -> float:
    """Return a step that integers can be computed with, on rows as well whose steps are larger."""
    if not STEP_LEAST <= step <= _STEP_MAX:
        raise ValueError(f"a quantization step of {step} is too small or too large")
    return step
