"""Where the bytes of a healed seed of some tens of kilobytes go: what stands outside of its weights, by part.

No healed model is kept in the repository yet. Rows are dead in the shares that healing left in a trial, drawn by stage
(bench/shrink.py), and half of the channels that are read; what is dead is cut, and sparse integers, steps of rows and
biases are drawn. The footprint, which is measured in an export, has the most bytes that it can have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bench import measure, synthetic
from bench.measure import Figures, Goal
from bench.shrink import IMAGE, Dead, mobilenet_dead, resnet_dead, without_rows
from seed_exporter.build import draft
from seed_exporter.build.streams import StreamEncoder
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.evaluate import golden, thinning
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.shrink.run import shrink
from seed_runtime import generator
from seed_runtime.backends import TensorSpec
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.format.dtypes import FLOAT32
from seed_runtime.format.header import SECTIONS, ModelInfo, serialize
from seed_runtime.format.preamble import PREAMBLE_BYTES
from seed_runtime.golden import Recipe

MOST: Final = 3000
"""Most bytes outside of streams (issue 10)."""
_SECTION_BYTES: Final = 6
"""Id and size of a section [B]."""
_ROW_SPREAD: Final = 5.0
"""Deviation of rows' steps within a convolution, in eighths of an octave: that of EfficientNet-lite0's batch norms."""
_VECTOR_SPREAD: Final = 6.0
"""Deviation of biases, in their steps, as healing rounds them."""


@dataclass(frozen=True)
class Case:
    """A model with dead rows."""

    title: str
    graph: Callable[[], Graph]
    dead: Dead
    sparseness: float
    """Logarithm of the scale of integers."""


CASES: Final = (
    Case("ResNet-50", lambda: synthetic.resnet50(biases=True), resnet_dead(True), -1.15),
    Case("MobileNetV2", lambda: synthetic.mobilenet_v2(biases=True), mobilenet_dead(True), -1.35),
)


def run(quick: bool = False) -> Figures:
    rows = [_row(case) for case in CASES[: 1 if quick else None]]
    goals = [Goal(f"{row['title']}: outside of streams", row["outside"], MOST, "B") for row in rows]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def table(figures: Figures) -> list[str]:
    rows = figures["rows"]
    lines = ["| bytes | " + " | ".join(row["title"] for row in rows) + " |", "|---|" + "--:|" * len(rows)]
    lines += [_line(name, [row["parts"][name] for row in rows]) for name in rows[0]["parts"]]
    sums = {
        "**outside of streams**": "outside",
        "heads of streams": "heads",
        "their data": "data",
        "whole seed": "size",
    }
    return lines + [_line(name, [row[key] for row in rows]) for name, key in sums.items()]


def _line(name: str, sizes: Sequence[int]) -> str:
    return f"| {name} | " + " | ".join(f"{size:,}" for size in sizes) + " |"


def _row(case: Case) -> Figures:
    measure.note(case.title)
    graph, plans = healed(case)
    made = draft.build(graph, StreamEncoder(graph, trained=True).encode(plans), ModelInfo(case.title, 1, 1, 1, 4))
    header = replace(made.header, golden=_golden(), footprint=bytes(_footprint_bytes()))
    sizes = {"preamble": PREAMBLE_BYTES}
    # Each section at a time: the file's own way of writing it.
    for section in SECTIONS.values():
        value = getattr(header, section.name.lower())
        if value is not None:
            sizes[section.name] = _SECTION_BYTES + len(section.serialize(value))
    assert sum(sizes.values()) == PREAMBLE_BYTES + len(serialize(header))
    sizes["skeleton, packed"] = len(made.part)
    chunks = [stream.sizes for stream in header.streams]
    return {
        "title": case.title,
        "tensors": len(graph.weights),
        "parts": sizes,
        "outside": sum(sizes.values()),
        "heads": sum(each[0] for each in chunks),
        "data": sum(sum(each[1:]) for each in chunks),
        "size": sum(sizes.values()) + sum(map(sum, chunks)),
    }


def healed(case: Case) -> tuple[Graph, dict[str, GridPlan]]:
    """Cut what is dead, and draw the integers of what is left."""
    random = np.random.default_rng(10)
    graph = shrink(without_rows(case.graph(), case.dead))
    return graph, {name: _plan(weight, case.sparseness, random) for name, weight in graph.weights.items()}


def _plan(weight: Weight, sparseness: float, random: np.random.Generator) -> GridPlan:
    values = as_float32(weight)
    living = values != 0
    if len(weight.shape) == 1:
        integers = np.rint(random.normal(0, _VECTOR_SPREAD, values.shape)) * living
        return GridPlan.of_narrow(
            QuantizedMatrix(integers.astype(np.int32), float(np.float32(random.uniform(0.01, 0.1))))
        )
    rows, cols = values.shape
    taps = int(np.prod(weight.shape[2:]))
    scale = random.laplace(0, 1, (rows, cols // taps, taps)) * np.exp(random.normal(sparseness, 0.35))
    scale *= np.exp(random.normal(0, 0.5, (rows, 1, 1)) + random.normal(0, 0.5, (1, cols // taps, 1)))
    if len(weight.shape) > 2 and cols > taps:
        scale *= random.random((1, cols // taps, 1)) < 0.5
    integers = (np.sign(scale) * np.floor(np.abs(scale) + 0.45)).reshape(rows, cols).astype(np.int32) * living
    codes = None
    if len(weight.shape) > 2:
        codes = np.rint(random.normal(0, _ROW_SPREAD, rows)) + 8 * 4
        codes = (codes.clip(0, 255) * integers.any(axis=1)).astype(np.uint8)
    step = float(np.float32(random.uniform(0.01, 0.1)))
    return GridPlan.of_narrow(QuantizedMatrix(integers, step, row_steps=codes))


def _golden() -> bytes:
    recipe = Recipe(generator.NORMAL, FLOAT32, IMAGE)
    outputs = {"output": np.random.default_rng(1).normal(size=(1, 1000)).astype(np.float32)}
    made = golden.golden_from_runs([outputs] * 2, [recipe], 1)
    assert made is not None
    return made.pack()


def _footprint_bytes() -> int:
    return thinning.thinned_size_max([TensorSpec("input", "float32", ("batch", *IMAGE[1:]))], 0)
