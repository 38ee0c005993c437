"""New values as a delta will hold them: differences to the seed's own tensors, in whole quantization steps.

A score of values that aren't rounded says nothing of what a device applies: variances of batch norms from 20 to 400
became negative in steps that suited their mean difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array
from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.encode.delta import rounded_step
from seed_runtime.codecs.encode.grid import round_to_nearest
from seed_runtime.tune.records import UNUSABLE, Score

F32 = npt.NDArray[np.float32]

SHARES: Final = (2.0, 1.4, 1.0, 0.7, 1 / 2, 1 / 4, 1 / 16, 1 / 64, 1 / 1024)
"""Steps that are tried, as shares of a tensor's root mean square difference: some 1 to 4, 6, 8 and 12 bits an
element."""
VECTOR_SHARE: Final = 1 / 4
"""Largest share for vectors, which take few bytes: each element counts for a whole row of outputs."""
_LOSS_SLACK: Final = 0.02
"""Share by which rounding may make the loss larger, where decisions stay."""
_DAMPING: Final = 0.1
"""What is added to the diagonal of covariances, as a share of its mean: they are those of few samples."""

Rounded = tuple[dict[str, Array], dict[str, float]]
"""Values, and the step of each tensor."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a matrix multiplies, so that its rounding errors can be compensated. Equal only to itself.

    Attributes:
        covariance: `(inputs, inputs)`, of the samples that were trained on.
        mean: `(inputs,)`.
        is_transposed: whether outputs are the matrix's first axis.
        bias: name of the bias that is added to the product; "" for none.
    """

    covariance: F32
    mean: F32
    is_transposed: bool
    bias: str


def round_differences(
    stored: Callable[[str], Array],
    values: Mapping[str, Array],
    share: float,
    inputs: Mapping[str, Inputs] | None = None,
) -> Rounded:
    """Round differences to steps that are a share of their root mean square, as a decoder adds them: in float32.

    Memory: the values once more, and one window; of matrices whose inputs are known, four times as much.

    Args:
        stored: reads a tensor of the seed, float32; each time into a new array.
        values: new values.
        share: of the root mean square.
        inputs: of some matrices, by their names.
    """
    found, steps = dict[str, Array](), dict[str, float]()
    moved = dict[str, F32]()
    # Matrices first: their biases take up what they lose on average.
    for name in sorted(values, key=lambda name: _is_vector(values[name])):
        old = found[name] = stored(name)
        new = values[name] + moved[name] if name in moved else values[name]
        is_vector = _is_vector(old)
        step = steps[name] = rounded_step((min(share, VECTOR_SHARE) if is_vector else share) * _rms(old, new))
        if inputs is not None and name in inputs and old.ndim == 2:
            known = inputs[name]
            lost = _round_with_feedback(old, new, step, known)
            if known.bias in values:
                moved[known.bias] = lost
        else:
            _round_to_nearest(old.reshape(-1), new.reshape(-1), step)
    return {name: found[name] for name in values}, {name: steps[name] for name in values}


def round_for_score(
    stored: Callable[[str], Array],
    values: Mapping[str, Array],
    wanted: Score,
    score: Callable[[Mapping[str, Array]], Score],
    inputs: Mapping[str, Inputs] | None = None,
    fits: Callable[[Rounded], bool] = lambda rounded: True,
) -> tuple[Score, Rounded]:
    """Round as coarsely as the score allows; the last try counts where all are worse.

    Memory: the values once more.

    Args:
        stored: reads a tensor of the seed, float32; each time into a new array.
        values: their new values, with `wanted` as score.
        wanted: what rounded values should reach.
        score: computes the score of values.
        inputs: see `round_differences`.
        fits: returns whether rounded values are small enough; finer ones are larger.

    Returns:
        The score of the rounded values, and these; no values where none fits.
    """
    reached, chosen = UNUSABLE, None
    for share in SHARES:
        rounded = round_differences(stored, values, share, inputs)
        is_small = fits(rounded)
        if is_small:
            reached, chosen = score(rounded[0]), share
            if reached > wanted or _is_near(reached, wanted):
                return reached, rounded
        del rounded  # the next ones needn't stand beside it
        if not is_small:
            break
    return reached, ({}, {}) if chosen is None else round_differences(stored, values, chosen, inputs)


def _is_near(reached: Score, wanted: Score) -> bool:
    """Return whether a score has the wanted one's decisions, if it counts any, and about its loss."""
    counts_decisions = wanted.value != -wanted.loss
    is_near = reached.loss <= wanted.loss + _LOSS_SLACK * abs(wanted.loss)
    return is_near and (reached.value >= wanted.value or not counts_decisions)


def _is_vector(value: Array) -> bool:
    return bool(sum(size > 1 for size in value.shape) < 2)


def _rms(old: Array, new: Array) -> float:
    pieces = zip(_windows(old.reshape(-1)), _windows(new.reshape(-1)), strict=True)
    squares = sum(float(np.sum(np.square(b - a, dtype=np.float64))) for a, b in pieces)
    return math.sqrt(squares / old.size)


def _windows(flat: Array) -> list[Array]:
    return [flat[start : start + WINDOW] for start in range(0, len(flat), WINDOW)]


def _round_to_nearest(old: Array, new: Array, step: float) -> None:
    """Add the difference in whole steps to the flat old values, in place."""
    for before, after in zip(_windows(old), _windows(new), strict=True):
        integers = round_to_nearest((after - before).reshape(1, -1), step).integers.reshape(-1)
        before += integers.astype(np.float32) * np.float32(step)


def _round_with_feedback(old: Array, new: Array, step: float, inputs: Inputs) -> F32:
    """Add the difference in whole steps to a matrix, in place; each input makes up for the errors of those before it.

    Source: Frantar et al., "GPTQ" (arXiv 2210.17323).

    Returns:
        What outputs lack on average, `(outputs,)`.
    """
    target, place = (each.T if inputs.is_transposed else each for each in (new - old, old))
    target = np.ascontiguousarray(target)
    wanted = target.copy()
    damped = inputs.covariance.astype(np.float64)
    scale = float(np.trace(damped)) / len(damped)
    damped[np.diag_indices_from(damped)] += _DAMPING * scale + 1e-30
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    chosen = np.empty_like(target)
    for row in range(len(target)):
        chosen[row] = np.rint(target[row] / np.float32(step)) * np.float32(step)
        ahead = (upper[row, row + 1 :] / upper[row, row]).astype(np.float32)
        target[row + 1 :] -= ahead[:, None] * (target[row] - chosen[row])
    place += chosen
    lost: F32 = inputs.mean @ (wanted - chosen)
    return lost
