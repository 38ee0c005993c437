"""Measure assembling to floats and to integers: one matrix of trained statistics, by all codecs of the targets."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

import seed_runtime
from bench import measure, seeds
from bench.measure import Figures, Goal, Spent
from seed_exporter import loaders
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.targets import TARGETS

WEIGHTS: Final = 1 << 24
QUICK_WEIGHTS: Final = 1 << 20
STEP: Final = 0.75
"""Quantization step in standard deviations: some 2.1 bits a weight, and all integers fit 4 bits."""
ROUNDS: Final = 5
FASTER: Final = 2.0
"""Times that int8 must be as fast as fp32."""
DTYPES: Final = ("fp32", "fp16", "int8", "int4")


def run(quick: bool = False) -> Figures:
    side = int((QUICK_WEIGHTS if quick else WEIGHTS) ** 0.5)
    weights = np.random.default_rng(1).standard_normal((side, side)).astype(np.float32).clip(-5, 5)
    graph = loaders.load(_model(weights))
    with measure.scratch() as folder:
        made = {}
        for dtype in DTYPES:
            lowered = TARGETS[dtype].lowered(graph, {"w": GridPlan(STEP)})
            made[dtype] = seeds.make(lowered.graph, dict(lowered.plans), folder / f"{dtype}.seed").path

        beside: dict[str, list[float]] = {dtype: [] for dtype in made}

        def assemble(dtype: str, path: Path) -> Spent:
            # Lanes may be decoded by a process beside, whose time counts as well.
            before = _processor_seconds()
            spent = measure.spent(lambda: seed_runtime.open(path).assemble(folder / dtype))
            own, lanes = (now - then for now, then in zip(_processor_seconds(), before, strict=True))
            beside[dtype].append(lanes)
            return Spent(own + lanes, spent.wall)

        times = measure.rounds(
            {dtype: lambda dtype=dtype, path=path: assemble(dtype, path) for dtype, path in made.items()},
            2 if quick else ROUNDS,
        )
        rows = [
            {
                "dtype": dtype,
                "seed_bytes": path.stat().st_size,
                "held_bytes": (folder / dtype / "model.weights").stat().st_size,
                "beside_s": measure.rounded(measure.median(beside[dtype])),
                "cpu_s": measure.rounded(measure.median([each.cpu for each in times[dtype]])),
                "wall_s": measure.rounded(measure.median([each.wall for each in times[dtype]])),
                "faster": measure.rounded(measure.median_ratio(times["fp32"], times[dtype])),
            }
            for dtype, path in made.items()
        ]
    faster = next(row["faster"] for row in rows if row["dtype"] == "int8")
    goals = [Goal("assembling to int8, times as fast as to fp32", faster, FASTER, "x", least=True).as_json()]
    return {"weights": side * side, "rows": rows, "goals": goals}


def table(figures: Figures) -> list[str]:
    lines = [
        f"Assembling {figures['weights'] / 1e6:.1f} M weights onto the disk, with all digests:",
        "",
        "| held as | seed | weights file | processor time | of it beside: lanes | clock | times as fast as fp32 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {row['dtype']} | {row['seed_bytes'] / 1e6:.2f} MB | {row['held_bytes'] / 1e6:.1f} MB | {row['cpu_s']:.3f} s"
        f" | {row['beside_s']:.3f} s | {row['wall_s']:.3f} s | {row['faster']:.2f} |"
        for row in figures["rows"]
    ]


def _processor_seconds() -> list[float]:
    """Return the processor time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return [each.ru_utime + each.ru_stime for each in used]


def _model(weights: np.ndarray) -> onnx.ModelProto:
    rows, cols = weights.shape
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in (("x", rows), ("y", cols))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
