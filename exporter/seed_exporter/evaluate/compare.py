"""How far a seed's outputs are from the original's, and the golden sample that lets a device repeat the check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from seed_exporter.graph.model import Graph, all_graphs
from seed_runtime import backends
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.golden import SUPPLIED, VALUES_MAX, Expected, Golden, Recipe, sample
from seed_runtime.limits import GOLDEN_ELEMENTS_MAX

GOLDEN_BYTES: Final = 512
_F32_MOST: Final = float(np.finfo(np.float32).max)
_SPREAD_FACTOR: Final = 16.0
"""Another processor orders its sums in another way: what differs between modes here, times this."""
RELATIVE: Final = 2e-5
"""Least tolerance, of an output's root mean square: some hundred units in the last place of float32."""
RELATIVE_HALF: Final = 1e-2
"""The same where a model computes in half precision: arm64 cores add in float16 where x86-64 adds in float32, which
moved outputs by one of its last places (relative 3e-4, 50 times what RELATIVE allows)."""
RELATIVE_INTEGER: Final = 2e-2
"""The same for 8-bit integer products, which saturate in the kernels of some x86-64 processors and not in others'."""
_INTEGER_OPERATORS: Final = frozenset(
    {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
     "QuantizeLinear", "MatMulIntegerToFloat", "QGemm"}
)  # fmt: skip


@dataclass(frozen=True)
class OutputError:
    """One output of the seed against the original's, over all inputs.

    `relative`: root mean square of the difference over that of the original; infinite where shapes differ, or where
    one of both has an infinity or NaN. `cosine`: of all values as one vector.
    `agreement`: share of rows whose largest value is at the same place, for outputs with a last axis of scores.
    """

    relative: float
    largest: float
    cosine: float
    agreement: float | None
    identical: bool

    def as_json(self) -> dict[str, float | bool | None]:
        """JSON has no infinity and no NaN: null stands for an error without measure, as of outputs of other shapes."""
        return {key: value if value is None or np.isfinite(value) else None for key, value in vars(self).items()}


def run_all(
    folder: Path, feeds: Sequence[Feeds], mode: str = "fast", threads: int | None = None
) -> list[dict[str, Array]]:
    """Outputs of the model assembled in `folder`."""
    return list(each_run(folder, feeds, mode, threads))


def each_run(
    folder: Path, feeds: Sequence[Feeds], mode: str = "fast", threads: int | None = None
) -> Iterator[dict[str, Array]]:
    """The same one by one, for those who may stop before the last."""
    runner = backends.get().open(folder, mode, threads)
    try:
        for feed in feeds:
            yield runner.run(feed)
    finally:
        runner.close()


def compare(
    original: Sequence[Mapping[str, Array]], candidate: Sequence[Mapping[str, Array]]
) -> dict[str, OutputError]:
    """Per output, over all calls."""
    return {
        name: _compare([call[name] for call in original], [call[name] for call in candidate]) for name in original[0]
    }


def worst_relative(errors: Mapping[str, OutputError]) -> float:
    return max((error.relative for error in errors.values()), default=0.0)


def least_tolerance(graph: Graph) -> float:
    """How far outputs may be on another processor, whatever was seen here, in root mean squares of an output."""
    operators = {node.op_type for inner in all_graphs(graph.model.graph) for node in inner.node}
    if operators & _INTEGER_OPERATORS:
        return RELATIVE_INTEGER
    half = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    casts = {
        attribute.i
        for inner in all_graphs(graph.model.graph)
        for node in inner.node
        for attribute in node.attribute
        if attribute.name == "to"
    }
    stored = {weight.dtype.code for weight in graph.weights.values()}
    return RELATIVE_HALF if half & (casts | stored) else RELATIVE


def golden_of(
    folder: Path,
    recipes: Sequence[Recipe],
    feeds: Feeds,
    seed: int,
    relative: float = RELATIVE,
    known: Mapping[tuple[str, int], Mapping[str, Array]] | None = None,
) -> Golden | None:
    """The sample of the model assembled in `folder`, or None where it would not fit into a seed.

    `known`: outputs of these feeds by mode and threads, which needn't be run again.
    """
    known = known or {}
    runs = [
        known[mode] if mode in known else run_all(folder, [feeds], *mode)[0]
        for mode in (("fast", 1), ("fast", 2), ("lean", 1))
    ]
    return golden_from(runs, recipes, seed, relative)


def golden_from(
    runs: Sequence[Mapping[str, Array]], recipes: Sequence[Recipe], seed: int, relative: float = RELATIVE
) -> Golden | None:
    """The sample that runs of the same input in several modes give. Its size depends on shapes only."""
    if sum(prod(recipe.dims) for recipe in recipes) > GOLDEN_ELEMENTS_MAX:
        return None
    for count in (VALUES_MAX, 32, 16, 8, 4, 2, 1):
        outputs = tuple(_expected([run[name] for run in runs], count, relative) for name in runs[0])
        golden = Golden(seed, tuple(recipes), outputs)
        if len(golden.pack()) <= GOLDEN_BYTES:
            return golden
    return None


def supplied(feeds: Feeds, specs: Sequence[TensorSpec]) -> tuple[Recipe, ...]:
    """Recipes that carry the bytes of real inputs, for a model that no generated ones suit."""
    return tuple(
        Recipe(SUPPLIED, BY_NAME[spec.dtype], feeds[spec.name].shape, data=feeds[spec.name].tobytes()) for spec in specs
    )


def _expected(runs: Sequence[Array], count: int, relative: float) -> Expected:
    first = runs[0]
    values, norm = sample(first, count)
    # Places without a number are compared one by one, on the device as well.
    finite = [np.nan_to_num(run.astype(np.float64), posinf=0, neginf=0) for run in runs]
    # Beyond float32 a tolerance says nothing, and a norm is as infinite as the device's.
    with np.errstate(over="ignore"):
        spread = max(float(np.max(np.abs(other - finite[0]), initial=0)) for other in finite[1:])
        rms = float(np.sqrt(np.square(finite[0]).mean())) if first.size else 0.0
        least = relative * max(rms, float(np.abs(values[np.isfinite(values)]).max(initial=0)) / 16)
        tolerance = max(_SPREAD_FACTOR * spread, least if first.dtype.kind == "f" else 0.0)
        return Expected(first.size, min(tolerance, _F32_MOST), float(np.float32(norm)), values)


def _compare(original: Sequence[Array], candidate: Sequence[Array]) -> OutputError:
    identical = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(original, candidate, strict=True))
    if any(a.shape != b.shape for a, b in zip(original, candidate, strict=True)):
        return OutputError(float("inf"), float("inf"), 0.0, 0.0, False)
    a = np.concatenate([array.astype(np.float64).reshape(-1) for array in original])
    b = np.concatenate([array.astype(np.float64).reshape(-1) for array in candidate])
    odd = ~(np.isfinite(a) & np.isfinite(b))
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return OutputError(float("inf"), float("inf"), 0.0, _agreement(original, candidate), False)
    a[odd] = b[odd] = 0
    norm_a, norm_b = float(np.sqrt(a @ a)), float(np.sqrt(b @ b))
    gap = b - a
    relative = float(np.sqrt(gap @ gap)) / norm_a if norm_a else float(norm_b > 0)
    cosine = float(a @ b / (norm_a * norm_b)) if norm_a and norm_b else float(norm_a == norm_b)
    return OutputError(relative, float(np.abs(gap).max(initial=0)), cosine, _agreement(original, candidate), identical)


def _agreement(original: Sequence[Array], candidate: Sequence[Array]) -> float | None:
    if original[0].dtype.kind != "f" or original[0].ndim < 2 or original[0].shape[-1] < 2:
        return None
    same = total = 0
    for a, b in zip(original, candidate, strict=True):
        equal = a.argmax(axis=-1) == b.argmax(axis=-1)
        same, total = same + int(equal.sum()), total + equal.size
    return same / total if total else None
