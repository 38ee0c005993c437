"""Compare streams with the entropy of their symbols under the coder's contexts, and with NNCodec on the same integers.

The tables of docs/adr/0015-contexts-of-rows-and-columns.md are of this kind. Steps are the same share of each matrix's
root mean square, so that no search decides; matrices alone are coded, and everything else of the models is left out.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bench import measure, seeds
from bench.measure import Figures, Goal
from bench.public import MODELS, cache_folder
from seed_exporter import loaders
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.peers.nncodec import DENSITY, module
from seed_runtime.codecs.encode import grid, symbols

COARSENESSES: Final = {"4": 0.22, "3": 0.45, "2": 0.9}
"""Steps that give about so many bits a weight, as a share of the root mean square."""
ABOVE_MOST: Final = 0.5
"""Most that a stream may take above its entropy [%]."""
QUICK: Final = ("ppcls", "magika")


def run(quick: bool = False) -> Figures:
    rows = [_row(name, bits) for name in (QUICK if quick else MODELS) for bits in COARSENESSES]
    rows = [row for row in rows if row["weights"]]
    goals = [
        goal
        for row in rows
        for goal in (
            Goal(f"{row['model']}, {row['bits']} bits: above the entropy", row["above"], ABOVE_MOST, "%"),
            Goal(f"{row['model']}, {row['bits']} bits: of NNCodec's bytes", row["of_nncodec"], 1, ""),
        )
    ]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _row(name: str, bits: str) -> Figures:
    graph = loaders.load(MODELS[name].prepare(cache_folder()))
    plans = seeds.plans_at(graph, COARSENESSES[bits])
    quantized = {key: plan.quantize(graph.weights[key]) for key, plan in plans.items() if isinstance(plan, GridPlan)}
    weights = sum(matrix.integers.size for matrix in quantized.values())
    if not weights:
        return {"weights": 0}
    measure.note(f"{name} at {bits} bits")
    stream = symbols.encode([grid.matrix_of(matrix) for matrix in quantized.values()])
    size, entropy = sum(map(len, stream.chunks)), math.ceil(stream.entropy_bits / 8)
    theirs = min(
        _nncodec({key: matrix.integers for key, matrix in quantized.items()}, tuned) for tuned in (False, True)
    )
    return {
        "model": name,
        "bits": bits,
        "weights": weights,
        "bytes": size,
        "above": measure.rounded(100 * (size / entropy - 1)),
        "nncodec_bytes": theirs,
        "of_nncodec": measure.rounded(size / theirs),
    }


def _nncodec(integers: dict[str, np.ndarray], tuned: bool) -> int:
    """Code integers as arrays at a step of 1, by settings that change none of them; `tuned` is its `param_opt`."""
    arrays = {key: array.astype(np.float32) for key, array in integers.items()}
    stream = module().compress(
        arrays, bitstream_path=None, return_bitstream=True, use_dq=False, opt_qp=False, param_opt=tuned,
        qp_density=DENSITY, qp=0, qp_per_tensor=dict.fromkeys(arrays, 0),
    )  # fmt: skip
    decoded = module().decompress(bytearray(stream))
    if not all(np.array_equal(decoded[key], array) for key, array in arrays.items()):
        raise RuntimeError("NNCodec changed the integers")
    return len(stream)


def table(figures: Figures) -> list[str]:
    lines = [
        "| matrices alone | weights | bits a weight | above the entropy | of NNCodec's bytes |",
        "|---|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {row['model']} | {row['weights'] / 1e6:.2f} M | {8 * row['bytes'] / row['weights']:.2f} "
        f"| {row['above']:.2f} % | **{row['of_nncodec']:.3f}** |"
        for row in figures["rows"]
    ]
