"""Cut out of a planned model what its plans leave dead, and the plans with it: integers and steps stay what they are.

A weight of the smaller graph has the plan's own integers at the places that are left. It is checked that they decode to
the same bits; what can't be had so (a bias that a constant was added to, rows' steps that no longer lie along rows) is
kept bit for bit as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seed_exporter.build.streams import Plans, restored
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import ExactPlan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.matrix import coded_view
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize.allocate import exact
from seed_exporter.shrink.places import Places
from seed_exporter.shrink.run import shrink
from seed_runtime.codecs.encode.grid import QuantizedMatrix


def cut_dead(graph: Graph, plans: Plans, places: Places | None = None) -> tuple[Graph, Plans]:
    """Return a graph without what is dead by its plans, and its plans; the arguments themselves if nothing is dead.

    Args:
        graph: the weights' graph.
        plans: of all weights.
        places: is told what is left of the graph's initializers.
    """
    before, places = _decoded(graph, plans), Places() if places is None else places
    after = shrink(before, places)
    if after is before:
        return graph, plans
    return after, {name: _plan(weight, before.weights, plans, places) for name, weight in after.weights.items()}


def _decoded(graph: Graph, plans: Plans) -> Graph:
    """Return the graph with the weights that a device makes of their plans."""
    weights = {name: replace(weight, data=restored(weight, plans[name])) for name, weight in graph.weights.items()}
    return replace(graph, weights=weights)


def _plan(weight: Weight, before: Mapping[str, Weight], plans: Plans, places: Places) -> Plan:
    old, plan = before.get(weight.name), plans.get(weight.name)
    if old is not None and old.data is weight.data:
        assert plan is not None
        return plan
    if old is not None and isinstance(plan, GridPlan):
        matrix = _taken(plan.quantize(old), old, weight, places)
        if matrix is not None:
            cut = GridPlan.of_narrow(matrix)
            if restored(weight, cut).tobytes() == weight.data.tobytes():
                return cut
    if old is not None and isinstance(plan, ExactPlan):
        return exact(weight, plan.mantissa_bits)
    return exact(weight)


def _taken(matrix: QuantizedMatrix, old: Weight, new: Weight, places: Places) -> QuantizedMatrix | None:
    """Return what is left of a matrix; None where it can't be laid out as the coder takes it."""
    shape = coded_view(new)

    def laid_out(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        array = places.taken(old.name, np.broadcast_to(array, matrix.integers.shape).reshape(old.shape))
        return np.ascontiguousarray(array).reshape(shape) if array.shape == new.shape else None

    integers = laid_out(matrix.integers)
    if integers is None or matrix.delay is not None:
        return None
    steps: list[npt.NDArray[np.uint8] | None] = []
    for codes, axis in ((matrix.row_steps, 1), (matrix.col_steps, 0)):
        if codes is None:
            steps.append(None)
            continue
        spread = laid_out(np.expand_dims(codes, axis))
        assert spread is not None
        line = spread.take(0, axis)
        if (spread != np.expand_dims(line, axis)).any():
            return None
        steps.append(line)
    return QuantizedMatrix(integers, matrix.step, row_steps=steps[0], col_steps=steps[1])
