"""Unit steps by damage: each tensor is rounded alone, and what that does to the outputs says how fine it has to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from seed_exporter.build.streams import restored
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.evaluate.patched import PatchedModel
from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.findings import Probed
from seed_exporter.quantize.rounding_plans import RoundedPlans
from seed_runtime.system.scratch import scratch_folder

RANGE: Final = (0.2, 5.0)
"""Least and largest factor between a probed unit step and the one by weight scales: a probe sees few inputs."""
PROBES_MAX: Final = 64
"""Most runs of a probe; in a model of more matrices, the smallest ones are probed together."""
CALLS_MAX: Final = 16
"""Most calls of the model that one run makes."""
PER_OCTAVE: Final = 2
"""Coarsenesses of an octave at which weights are probed: sizes that differ by a quarter of a bit a weight share one."""


def units_by_damage(
    evaluator: Evaluator, units: Mapping[str, float], coarseness: float, rounding: RoundedPlans
) -> dict[str, float]:
    """Correct unit steps such that at one coarseness a bit more or less costs the same damage in every tensor.

    A tensor of n weights at step s does the damage d = a s^2 and takes n log2(1/s) bits and a constant: the sum of
    damages at a given size is least where s^2 is proportional to n / a.
    Source: Lagrange multipliers on high-rate quantization, as Shoham and Gersho, "Efficient bit allocation for an
    arbitrary set of quantizers" (1988).

    Args:
        evaluator: runs the model.
        units: unit steps by weight scales, in weight units.
        coarseness: near the one that the seed will have, in unit steps; it is probed at the nearest of PER_OCTAVE.
        rounding: rounds a weight as the seed will have it.

    Returns:
        Unit steps whose mean logarithm over all weights is that of `units`; `units` if time is up.
    """
    coarseness = 2.0 ** (round(PER_OCTAVE * math.log2(coarseness)) / PER_OCTAVE)
    if (known := evaluator.findings.probes.get(coarseness)) is not None:
        evaluator.trail.damages.update(known.damages)
        return dict(known.units)
    feeds = list(islice(evaluator.calibration or evaluator.feeds, CALLS_MAX))
    counts = {name: evaluator.graph.weights[name].count for name in units}
    groups = _groups(counts)
    evaluator.trail.plan_work(len(groups))
    corrections: dict[str, float] = {}
    with scratch_folder(evaluator.folder) as folder:
        model = PatchedModel(evaluator.graph, folder, evaluator.skeletons)
        expected = model.run({}, feeds)
        for group in groups:
            plans = {name: rounding.probe_plan(name, GridPlan(float(coarseness * units[name]))) for name in group}
            data = {name: restored(evaluator.graph.weights[name], plan) for name, plan in plans.items()}
            damage = evaluator.smooth_metric.damage(expected, model.run(data, feeds), feeds)
            evaluator.trail.advance()
            if evaluator.trail.expired:
                return dict(units)
            for name in group:
                evaluator.trail.damages[name] = damage * counts[name] / sum(counts[each] for each in group)
                corrections[name] = _correction(damage, sum(counts[each] for each in group))
    corrected = _corrected(units, counts, corrections)
    evaluator.findings.probes[coarseness] = Probed(corrected, dict(evaluator.trail.damages))
    return corrected


def _groups(counts: Mapping[str, int]) -> Sequence[Sequence[str]]:
    """Return what is rounded in each run: the largest tensors alone, the rest together."""
    ordered = sorted(counts, key=lambda name: -counts[name])
    alone, rest = ordered[: PROBES_MAX - 1], ordered[PROBES_MAX - 1 :]
    return [[name] for name in alone] + ([rest] if rest else [])


def _correction(damage: float, count: int) -> float:
    """Return the factor on a unit step, up to one factor for all; infinite where no damage was measured, 0 of too much.

    The unit steps themselves were in the step of the probe, so that only counts and damages are left.
    """
    if not math.isfinite(damage):
        return 0.0
    return math.sqrt(count / damage) if damage > 0 else math.inf


def _corrected(
    units: Mapping[str, float], counts: Mapping[str, int], corrections: Mapping[str, float]
) -> dict[str, float]:
    """Apply corrections around their weighted geometric mean, within RANGE."""
    known = {name: factor for name, factor in corrections.items() if 0 < factor < math.inf}
    if not known:
        return dict(units)
    total = sum(counts[name] for name in known)
    mean = math.exp(sum(counts[name] * math.log(factor) for name, factor in known.items()) / total)
    return {name: unit * min(max(corrections[name] / mean, RANGE[0]), RANGE[1]) for name, unit in units.items()}
