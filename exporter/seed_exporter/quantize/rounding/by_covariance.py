"""Rounding by the covariance of inputs: error feedback and steps of inputs, as far as left-out inputs confirm them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.graph.linear import LinearView, table_axis_is_first
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Weight
from seed_exporter.quantize.rounding.cross_validation import DAMPINGS, EXPONENTS, Validated, validate
from seed_exporter.quantize.rounding.feedback import factor, round_with_feedback
from seed_exporter.quantize.rounding.layout import InputSteps, Place, input_steps, path_delay, place_of_inputs
from seed_exporter.quantize.rounding.rate_choice import costs_of, rate_choice
from seed_exporter.quantize.rounding.rounder import Rounder, checked, in_steps
from seed_exporter.quantize.rounding.trellis import PathChoice, integers_of
from seed_runtime.codecs.encode.grid import QuantizedMatrix

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


class CovarianceRounder(Rounder):
    """Rounds a weight whose inputs were measured; each weight for itself where nothing promises less damage."""

    def __init__(
        self, weight: Weight, view: LinearView, covariance: Covariance, *, input_steps: bool, rate: float = 0.0
    ) -> None:
        """Hold the weight and the moments of its inputs.

        Args:
            weight: what is rounded.
            view: the weight as a linear map.
            covariance: moments of the view's inputs.
            input_steps: inputs may have steps of their own.
            rate: weight of a bit when an integer is chosen, in squared steps.
        """
        super().__init__(weight)
        self.view, self.covariance, self._rate, self._input_steps = view, covariance, rate, input_steps

    def quantize(self, step: float) -> QuantizedMatrix:
        """Round input by input, each towards its weight plus what earlier errors ask for."""
        prepared, weights = self._prepared, self._inputs_first()
        least = checked(step * prepared.steps.least)
        steps = prepared.steps.above(least)
        integers = np.empty(0, np.int32)
        if prepared.feedback is None or self._rate:
            integers = _nearest(weights, steps)
        choice = rate_choice(self._coded(integers), self._rate) if self._rate else None
        if choice is not None:
            classes = np.ascontiguousarray(self.view.maps_of(choice.classes).transpose(0, 2, 1))
            if prepared.feedback is None:
                scaled = in_steps(weights, steps[:, :, None])
                integers = choice.choose(scaled, classes, prepared.costs[:, :, None]).astype(np.int32)
            else:
                integers = round_with_feedback(
                    weights,
                    steps,
                    prepared.feedback,
                    lambda scaled, index: choice.choose(scaled, classes[:, index], prepared.costs[:, index, None]),
                )
        elif prepared.feedback is not None:
            integers = round_with_feedback(weights, steps, prepared.feedback)
        return QuantizedMatrix(self._coded(integers), least, prepared.steps.row_steps, prepared.steps.col_steps)

    def quantize_on_trellis(self, step: float) -> QuantizedMatrix | None:
        """Find a path for each input, or one through all of them where their weights lie one after the other."""
        prepared, delay = self._prepared, path_delay(self.view)
        if delay is None:
            return None
        weights, least = self._inputs_first(), checked(step * prepared.steps.least / 2)
        steps = prepared.steps.above(least)
        path = PathChoice(self._coded(_nearest(weights, 2 * steps)), self._rate)
        classes = None if path.classes is None else self.view.maps_of(path.classes).transpose(0, 2, 1)

        def choose(scaled: F32, index: int) -> F32:
            if delay > 1:
                path.restart()
            own = None if classes is None else classes[:, index].reshape(-1)
            costs = np.repeat(prepared.costs[:, index], scaled.shape[1])
            return path.choose(scaled.reshape(-1), own, costs).reshape(scaled.shape)

        if prepared.feedback is not None:
            values = round_with_feedback(weights, steps, prepared.feedback, choose)
        else:
            values = np.empty(weights.shape, np.int32)
            for index in range(weights.shape[1]):
                values[:, index] = choose(in_steps(weights[:, index], steps[:, index, None]), index)
        matrix = self._coded(integers_of(values))
        return QuantizedMatrix(matrix, least, prepared.steps.row_steps, prepared.steps.col_steps, delay=delay)

    def damage(self, matrix: QuantizedMatrix) -> float:
        """Compute the damage, that of feedback as it is on inputs that were left out.

        Errors that are fitted to the moments do less damage under these than on other inputs.
        """
        errors, validated, feedback = self.view.maps_of(self.errors(matrix)), self.validated, self._prepared.feedback
        if validated is None:
            return float(np.square(errors, dtype=np.float64).sum())
        if feedback is None:
            moved = np.matmul(errors, self.covariance.total())
            return float(np.einsum("goi,goi->", moved, errors, dtype=np.float64))
        differences = np.matmul(errors, feedback.transpose(0, 2, 1))
        return float(np.einsum("goi,gi->", np.square(differences, dtype=np.float64), validated.pivots))

    def of(self, weight: Weight, rate: float) -> Rounder:
        """Return a rounder of another weight, with what left-out inputs confirmed: it doesn't depend on the weight."""
        other = CovarianceRounder(weight, self.view, self.covariance, input_steps=self._input_steps, rate=rate)
        self.validated  # noqa: B018  computed once for both
        known = ("validated", "_prepared")
        other.__dict__.update({name: self.__dict__[name] for name in known if name in self.__dict__})
        return other

    @property
    def is_calibrated(self) -> bool:
        """True if left-out inputs confirm feedback or steps."""
        validated = self.validated
        return validated is not None and (validated.damping is not None or validated.exponent > 0)

    @property
    def held_bytes(self) -> int:
        """Size of the feedback where it was computed."""
        prepared = self.__dict__.get("_prepared")
        return 0 if prepared is None or prepared.feedback is None else prepared.feedback.nbytes

    def forget(self) -> None:
        """Drop the feedback; what left-out inputs confirmed, which takes most of the time, stays."""
        self.__dict__.pop("_prepared", None)

    @cached_property
    def validated(self) -> Validated | None:
        """Damping, pivots and steps that left-out inputs confirm; None where the moments say nothing."""
        place = place_of_inputs(self.view, coded_view(self.weight)) if self._input_steps else Place.NONE
        exponents = EXPONENTS[:1] if place is Place.NONE else EXPONENTS
        # Reading a row of a table is a use as well, for which all errors of a row count alike.
        dampings = [each for each in DAMPINGS if each >= 1] if table_axis_is_first(self.weight) else DAMPINGS
        return validate(self.covariance, exponents, dampings, shared=place is Place.SHARED)

    @cached_property
    def _prepared(self) -> _Prepared:
        validated, feedback, squared = self.validated, None, None
        if validated is not None and validated.damping is not None:
            feedback, _ = factor(self.covariance.total(), validated.damping)
        if validated is not None and validated.exponent:
            squared = validated.squared_steps
        steps = input_steps(self.view, coded_view(self.weight), squared)
        costs = np.ones(steps.multiples.shape, np.float32)
        if validated is not None:
            costs = costs_of(validated.pivots * np.square(steps.multiples, dtype=np.float64))
        self.covariance.release()
        return _Prepared(feedback, steps, costs)

    def _inputs_first(self) -> F32:
        """Copy the weights, `(groups, inputs, outputs)`: at every step anew, as a kept copy takes what they take."""
        return np.ascontiguousarray(self.view.maps_of(as_float32(self.weight)).transpose(0, 2, 1))

    def _coded(self, integers: I32) -> I32:
        """Lay `(groups, inputs, outputs)` out as the coded matrix."""
        return self.view.stored_of(integers.transpose(0, 2, 1)).reshape(coded_view(self.weight))


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What rounding needs at any step. Equal only to itself.

    Attributes:
        feedback: see `feedback.factor`; None where none promises a gain.
        steps: of the inputs.
        costs: `(groups, inputs)`, damage of a squared step of each input over the average.
    """

    feedback: F32 | None
    steps: InputSteps
    costs: F32


def _nearest(weights: F32, steps: F32) -> I32:
    scaled = in_steps(weights, steps[:, :, None])
    return np.rint(scaled, out=scaled).astype(np.int32)
