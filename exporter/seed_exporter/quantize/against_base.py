"""Plans against a base: each weight as the base's, as what differs from it, or anew, whichever takes fewer bytes.

A difference is rounded by the statistics of the plan, in steps that are a share of the plan's own: the coarsest ones
with which the outputs are as good as without a base. The errors of single weights don't tell which: what rounding loses
of a fine-tune may point from the new version to the old one in all weights at once.

Differences are on plain grids, whatever the plan is: what they hold of the base's own errors lies within a step, where
a grid has one value and a trellis two or three. Of a byte model's fine-tune, a trellis took 6 % more at equal damage.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from seed_exporter.build.base_model import BaseModel
from seed_exporter.build.streams import Plans
from seed_exporter.codecs import codec_of
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.delta import DeltaPlan
from seed_exporter.codecs.exact import ExactPlan, kept
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.matrix import as_float32, coded_view, fits_a_stream
from seed_exporter.graph.model import Weight
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.rounding_plans import RoundedPlans
from seed_runtime.codecs.delta import (
    ANEW,
    BITS_MAX,
    DIFFERENCE,
    DIFFERENCE_STEP_LEAST,
    UNCHANGED,
    difference_of_bits,
)
from seed_runtime.codecs.encode import delta, grid
from seed_runtime.codecs.encode.delta import NO_CHANGE, Change
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.tables import Tables
from seed_runtime.codecs.floats import STORED_AS
from seed_runtime.format.dtypes import FLOAT32

SHARE_MOST, SHARE_LEAST = 2.0, 1 / 8
"""Largest and smallest step that is tried, as a share of the plan's own."""
_TRIES: Final = 6
"""Shares that are tried: the last one is within 5 % of the best."""
_DAMAGE_MOST: Final = 1.05
"""Damage to the outputs that may remain, as a share of what the plans do without a base."""
_RATE_SHARE: Final = 0.3
"""Weight of a bit, as a share of that for whole weights: with all of it, integers become zeros that together lead back
to the old version. Of a byte model's fine-tune, none takes .3 to 1.5 % more bytes at equal damage."""
_OTHER_STREAM: Final = 64
"""Bytes that another stream costs at least, which a weight of its own codec makes among those of `delta` [B]."""


def against_base(evaluator: Evaluator, plans: Plans, base: BaseModel) -> dict[str, Plan]:
    """Return plans that make each weight of the base's tensor where that takes fewer bytes, at the same damage.

    Args:
        evaluator: has the graph, its statistics, the effort, and inputs to judge outputs on.
        plans: of all weights, by a method that knows no base.
        base: the base.

    Returns:
        The plans; those that were given where none on the base does as little damage.
    """
    rounding = RoundedPlans(evaluator)
    if not evaluator.measures_errors:
        return _against(evaluator, rounding, plans, base, 1.0)
    most = _DAMAGE_MOST * _damage(evaluator, plans)

    def at(share: float) -> dict[str, Plan] | None:
        found = _against(evaluator, rounding, plans, base, share)
        return found if _damage(evaluator, found) <= most else None

    best = at(1.0)
    # Bounds of the largest share that does as little damage, which rises with it but for some noise.
    low, high = (1.0, SHARE_MOST) if best is not None else (SHARE_LEAST, 1.0)
    for _ in range(_TRIES):
        share = math.sqrt(low * high)
        found = at(share)
        if found is None:
            high = share
        else:
            low, best = share, found
    return dict(plans) if best is None else best


def _damage(evaluator: Evaluator, plans: Plans) -> float:
    outputs = evaluator.outputs_with(plans)
    return evaluator.smooth_metric.damage(evaluator.expected, outputs, evaluator.feeds)


def _against(
    evaluator: Evaluator, rounding: RoundedPlans, plans: Plans, base: BaseModel, share: float
) -> dict[str, Plan]:
    def against(name: str, plan: Plan) -> Plan:
        weight = evaluator.graph.weights[name]
        values = base.values(weight)
        if values is None:
            return _anew(weight, plan, weight.data)
        return min(_choices(evaluator, rounding, weight, plan, values, share), key=lambda choice: choice[0])[1]

    found = Parallel(n_jobs=evaluator.encoder.jobs, prefer="threads")(
        delayed(against)(name, plan) for name, plan in plans.items()
    )
    return dict(zip(plans, found, strict=True))


def _choices(
    evaluator: Evaluator,
    rounding: RoundedPlans,
    weight: Weight,
    plan: Plan,
    base: npt.NDArray[Any],
    share: float,
) -> list[tuple[float, Plan]]:
    """Return plans of about the same error, each with its bytes.

    Args:
        evaluator: see `against_base`.
        rounding: has the rounders of whole weights.
        weight: what is planned.
        plan: of the weight, without a base.
        base: the base's tensor.
        share: steps of differences, as a share of the plan's own.
    """
    own = codec_of(plan)
    restored = own.restore(weight, plan)
    if restored.tobytes() == base.tobytes():
        return [(0.0, DeltaPlan(NO_CHANGE, base))]
    choices: list[tuple[float, Plan]] = []

    def offer(change: Change) -> None:
        size = 0.0 if change.matrix is None else Tables.of([change.matrix]).bytes_of(change.matrix)
        choices.append((size, DeltaPlan(change, base)))

    anew = _anew(weight, plan, base)
    if isinstance(anew, DeltaPlan):
        offer(anew.change)
    else:
        choices.append((own.estimate([own.prepare(weight, plan, 0)]).size + _OTHER_STREAM, plan))
    if not fits_a_stream(weight):
        return choices
    if isinstance(plan, GridPlan):
        difference = _difference(weight, base)
        if difference is not None and share * plan.step >= DIFFERENCE_STEP_LEAST:
            matrix = _rounded(evaluator, rounding, weight, plan, difference, share)
            offer(Change(DIFFERENCE, grid.matrix_of(matrix)) if matrix.integers.any() else NO_CHANGE)
    elif isinstance(plan, ExactPlan):
        if weight.dtype.bits <= BITS_MAX:
            offer(exact_change(weight, kept(weight, plan), base))
        # As large an error as fewer bits of mantissa make, in even steps.
        step = math.sqrt(12 * error) if 0 < (error := _error(weight, restored)) < math.inf else 0.0
        difference = _difference(weight, base)
        if step and difference is not None:
            offer(delta.quantized(difference, share * step))
    return choices


def exact_change(weight: Weight, data: npt.NDArray[Any], base: npt.NDArray[Any]) -> Change:
    """Return what makes each bit of a weight's data of the base's tensor.

    Args:
        weight: of elements of BITS_MAX bits at most.
        data: its elements, or others in their place.
        base: the base's tensor.
    """
    bits, view = np.dtype(f"u{base.dtype.itemsize}"), coded_view(weight)
    old = base.reshape(-1).view(bits)
    integers = difference_of_bits(data.reshape(-1).view(bits), old, weight.dtype)
    return delta.exact(integers.reshape(view), old.reshape(view), weight.dtype)


def _anew(weight: Weight, plan: Plan, base: npt.NDArray[Any]) -> Plan:
    """Return a plan's own integers in the stream of differences, where they can be there."""
    if not isinstance(plan, GridPlan):
        return plan
    return DeltaPlan(Change(ANEW, grid.matrix_of(plan.quantize(weight))), base)


def _rounded(
    evaluator: Evaluator,
    rounding: RoundedPlans,
    weight: Weight,
    plan: GridPlan,
    difference: npt.NDArray[np.float32],
    share: float,
) -> QuantizedMatrix:
    """Round differences as the plan's weight was rounded, with steps that are a share of the plan's."""
    wanted = share * plan.step
    if plan.matrix is None:
        return grid.round_to_nearest(difference, wanted)
    if plan.matrix.delay is not None:
        wanted *= 2  # its step is half of the distance between two values of one grid
    differing = replace(weight, dtype=FLOAT32, data=difference.reshape(weight.data.shape))
    rounder = rounding.rounder(weight.name).of(differing, _RATE_SHARE * evaluator.effort.rate)
    # A rounder is asked for the mean of all steps, and a plan says the least of them.
    first = rounder.quantize(wanted)
    return first if first.step == wanted else rounder.quantize(wanted * (wanted / first.step))


def _difference(weight: Weight, base: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    """Return what is added to the base's tensor, as `coded_view` lays it out; None where that isn't finite."""
    if weight.dtype.name not in STORED_AS:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        found = as_float32(weight) - as_float32(replace(weight, data=base))
    return found if np.isfinite(found).all() else None


def _error(weight: Weight, data: npt.NDArray[Any]) -> float:
    """Return the mean squared error of data in a weight's place; infinite where it can't be computed."""
    difference = _difference(weight, data)
    if difference is None:
        return math.inf
    return float(np.mean(np.square(difference, dtype=np.float64)))


def count_modes(plans: Plans) -> tuple[int, int]:
    """Count the weights that are the base's as they are, and those that differ from it."""
    modes = [plan.change.mode for plan in plans.values() if isinstance(plan, DeltaPlan)]
    return modes.count(UNCHANGED), sum(mode not in (UNCHANGED, ANEW) for mode in modes)
