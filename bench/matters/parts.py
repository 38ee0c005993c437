"""Whole seeds of a network by the published method's parts, and by quantized integers of as many bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import seeds
from seed_exporter.build import draft
from seed_exporter.build.streams import encode
from seed_exporter.calibrate import WEIGHT_SCALES, collect
from seed_exporter.codecs import moments
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.codecs.moments import MomentsPlan
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Graph
from seed_exporter.quantize import allocate
from seed_exporter.quantize.allocate import VECTOR_BITS
from seed_exporter.quantize.factorize import factorize
from seed_exporter.quantize.steps import unit_steps
from seed_runtime.skeletons.onnx import WEIGHTS_FILE

MANTISSA_BITS = VECTOR_BITS[1]
MORE_ERROR = 1.1
"""Squared error of quantized factors, as a multiple of that of the components that they take the place of."""


def units_of(graph: Graph) -> dict[str, float]:
    """Return the unit steps of the matrices that methods reduce, by name."""
    return unit_steps(graph, collect(graph, {WEIGHT_SCALES})[WEIGHT_SCALES])


def moments_plans(graph: Graph, components: int) -> dict[str, Plan]:
    """Plan the published method with so many components of each matrix, or as many as it has."""
    units = units_of(graph)
    plans = allocate.uniform(graph, units, 1.0, MANTISSA_BITS)
    for name in units:
        most = moments.components_max(*coded_view(graph.weights[name]))
        plans[name] = MomentsPlan(min(components, most))
    return plans


def reduced(graph: Graph, components: int, *, noise: bool = True, sparsity: bool = True) -> dict[str, np.ndarray]:
    """Return the matrices that parts of the published method make, by name.

    Args:
        graph: the weights.
        components: of each matrix, or as many as it has.
        noise: redraw what components leave, by its mean and deviation.
        sparsity: set weights to 0 until as many are 0 as in the original.
    """
    found = {}
    for index, name in enumerate(units_of(graph)):
        weight = graph.weights[name]
        matrix = as_float32(weight)
        most = moments.components_max(*matrix.shape)
        tensor = moments.reduce(matrix, min(components, most), rng_seed=index, noise=noise)
        if not sparsity:
            tensor = replace(tensor, head=replace(tensor.head, threshold=0.0))
        found[name] = tensor.values().reshape(weight.shape)
    return found


def factor_plans(graph: Graph, components: int) -> dict[str, Plan]:
    """Plan quantized factors in place of so many components, at 1.1 times their squared error.

    A matrix that has no more components than that, or no factors that are cheaper, is quantized to the same error.
    """
    units = units_of(graph)
    plans = allocate.uniform(graph, units, 1.0, MANTISSA_BITS)
    for name in units:
        matrix = as_float32(graph.weights[name])
        count = min(components, moments.components_max(*matrix.shape))
        left = matrix - moments.reduce(matrix, count, noise=False).values()
        error = MORE_ERROR * float(np.mean(np.square(left, dtype=np.float64)))
        error = max(error, 1e-4 * float(np.mean(np.square(matrix))))
        factors = factorize(matrix, error)
        step = float(np.sqrt(12 * error))
        plans[name] = LowRankPlan(step, factors) if factors is not None else GridPlan(step)
    return plans


def grid_plans(graph: Graph, size: int) -> dict[str, Plan]:
    """Plan integers of one coarseness for all matrices, the finest whose whole seed takes at most `size` bytes."""
    units = units_of(graph)
    low, high = -8.0, 8.0  # log2 of the coarseness
    for _ in range(10):
        middle = (low + high) / 2
        plans = allocate.uniform(graph, units, 2.0**middle, MANTISSA_BITS)
        low, high = (low, middle) if seed_of(graph, plans)[0] <= size else (middle, high)
    return allocate.uniform(graph, units, 2.0**high, MANTISSA_BITS)


def seed_of(graph: Graph, plans: Mapping[str, Plan]) -> tuple[int, dict[str, np.ndarray]]:
    """Make a whole seed, assemble it with the runtime's decoder, and return its size [B] and the weights, by name."""
    made = draft.build(graph, encode(graph, plans, jobs=1), seeds.model_of("matters", graph))
    with tempfile.TemporaryDirectory() as folder:
        made = made.assemble(Path(folder))
        data = (Path(folder) / WEIGHTS_FILE).read_bytes()
    found = {
        hole.name: np.frombuffer(data[each.offset : each.offset + each.size], each.dtype.storage).reshape(each.dims)
        for hole, each in zip(made.skeleton.holes, made.header.holes, strict=True)
    }
    return made.size, found
