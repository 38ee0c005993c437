"""Make the golden sample: inputs and expected outputs, with which a device repeats the check of a seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from seed_exporter.evaluate.outliers import ordinary
from seed_exporter.evaluate.run import run_all
from seed_exporter.evaluate.words import recipe_of_texts, supplied
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.format.dtypes import BY_NAME, STRING
from seed_runtime.golden import SUPPLIED, VALUES_MAX, Expected, ExpectedText, Golden, Recipe, sample, sample_text
from seed_runtime.limits import GOLDEN_ELEMENTS_MAX

GOLDEN_BYTES: Final = 512
"""Largest size of a packed golden sample [B]."""
RELATIVE: Final = 2e-5
"""Least tolerance, as a share of an output's root mean square: some hundred units in the last place of float32."""
RELATIVE_HALF: Final = 1e-2
"""Least tolerance where a model computes in half precision, as a share of the root mean square.

arm64 cores add in float16 where x86-64 adds in float32, which moved outputs by one of its last places (relative 3e-4,
50 times what RELATIVE allows).
"""
RELATIVE_INTEGER: Final = 2e-2
"""Least tolerance for 8-bit integer products, as a share of the root mean square.

They saturate in the kernels of some x86-64 processors and not in others'.
"""
_SPREAD_FACTOR: Final = 16.0
"""Factor from the difference between modes here to the tolerance: another processor orders its sums differently."""
_F32_MAX: Final = float(np.finfo(np.float32).max)
_INTEGER_OPERATORS: Final = frozenset(
    {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
     "QuantizeLinear", "MatMulIntegerToFloat", "MatMulNBits", "QGemm"}
)  # fmt: skip


def least_relative_tolerance(graph: Graph) -> float:
    """Return how far outputs may be on another processor at least, as a share of an output's root mean square."""
    nodes = GraphIndex(graph).nodes
    operators = {node.op_type for node in nodes}
    if operators & _INTEGER_OPERATORS:
        return RELATIVE_INTEGER
    half = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    casts = {attribute.i for node in nodes for attribute in node.attribute if attribute.name == "to"}
    stored = {weight.dtype.code for weight in graph.weights.values()}
    return RELATIVE_HALF if half & (casts | stored) else RELATIVE


def make_golden(
    folder: Path,
    recipes: Sequence[Recipe],
    feeds: Feeds,
    rng_seed: int,
    relative: float = RELATIVE,
    known: Mapping[tuple[str, int], Mapping[str, Array]] | None = None,
    noisy: Collection[str] = (),
    size: int = GOLDEN_BYTES,
) -> Golden | None:
    """Make the golden sample of the model assembled in `folder`.

    Args:
        folder: the assembled model.
        recipes: how a device makes the inputs.
        feeds: the inputs that these recipes make from `rng_seed`.
        rng_seed: random state of the first input's recipe.
        relative: least tolerance, as a share of an output's root mean square.
        known: outputs for these feeds by mode and threads, which needn't be run again.
        noisy: outputs that noise decides, which are not compared.
        size: packed size that it may have where a value of each output takes less, at most GOLDEN_BYTES [B].

    Returns:
        The sample, or None where it would not fit into a seed.
    """
    known = known or {}
    runs = [
        known[mode] if mode in known else run_all(folder, [feeds], *mode)[0]
        for mode in (("fast", 1), ("fast", 2), ("lean", 1))
    ]
    return golden_from_runs(runs, recipes, rng_seed, relative, noisy, size)


def golden_from_runs(
    runs: Sequence[Mapping[str, Array]],
    recipes: Sequence[Recipe],
    rng_seed: int,
    relative: float = RELATIVE,
    noisy: Collection[str] = (),
    size: int = GOLDEN_BYTES,
) -> Golden | None:
    """Make the golden sample from outputs of one input in several modes, by name; its size depends on shapes only.

    Returns:
        The sample, or None where it would not fit into a seed.
    """
    if sum(prod(recipe.dims) for recipe in recipes) > GOLDEN_ELEMENTS_MAX:
        return None
    # A sequence whose length depends on rounding.
    if any(run.keys() != runs[0].keys() for run in runs):
        return None
    for count in (VALUES_MAX, 32, 16, 8, 4, 2, 1):
        outputs = tuple(
            None if name in noisy else _expected([run[name] for run in runs], count, relative) for name in runs[0]
        )
        golden = Golden(rng_seed, supplied(recipes, rng_seed), outputs)
        if len(golden.pack()) <= (GOLDEN_BYTES if count == 1 else size):
            return golden
    return None


def recipes_from_feeds(feeds: Feeds, specs: Sequence[TensorSpec]) -> tuple[Recipe, ...]:
    """Make recipes that carry the bytes of real inputs, for a model that no generated inputs suit."""
    return tuple(
        recipe_of_texts(feeds[spec.name])
        if spec.dtype == STRING.name
        else Recipe(SUPPLIED, BY_NAME[spec.dtype], feeds[spec.name].shape, data=feeds[spec.name].tobytes())
        for spec in specs
    )


def _expected(runs: Sequence[Array], count: int, relative: float) -> Expected | ExpectedText | None:
    """Describe one output: `count` of its values, its norm, and a tolerance that covers the runs' differences.

    Text is described as a whole. None where rounding decides a shape or a text.
    """
    first = runs[0]
    if any(run.shape != first.shape for run in runs):
        return None
    if first.dtype.kind == "O":
        return sample_text(first) if all(sample_text(run) == sample_text(first) for run in runs) else None
    found = sample(first, count)
    others = [run.reshape(-1).astype(np.float64) for run in runs]
    # A mask is compared as what it is; beside it no tolerance would be small.
    measured = np.logical_and.reduce([ordinary(run) for run in others])
    numbers = [run[measured] for run in others]
    # Beyond float32 a tolerance says nothing.
    with np.errstate(over="ignore"):
        spread = max(float(np.max(np.abs(other - numbers[0]), initial=0)) for other in numbers[1:])
        rms = float(np.sqrt(np.square(numbers[0]).mean())) if numbers[0].size else 0.0
    chosen = np.abs(found.values[np.abs(found.values) <= np.max(np.abs(numbers[0]), initial=0)])
    least = relative * max(rms, float(chosen.max(initial=0)) / 16)
    tolerance = max(_SPREAD_FACTOR * spread, least if first.dtype.kind == "f" else 0.0)
    return replace(found, tolerance=min(tolerance, _F32_MAX))
