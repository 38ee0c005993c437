"""Compare codec 8, which sends no tables and classes, with codec 2 on sparse integers of some tens of kilobytes.

No healed model is at hand here. "resnet50" has the shapes of ResNet-50 with as many living rows, columns and nonzero
integers as healing left of it (270 thousand, 79 thousand), drawn with scales of rows and columns; its dead rows and
columns are coded, too. The others are trained weights of public models, rounded with a dead zone, matrices below
70 thousand elements of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from bench import measure, synthetic
from bench.measure import Figures, Goal
from bench.public import MODELS, cache_folder
from seed_exporter import loaders
from seed_exporter.graph.matrix import as_float32, kernel_of
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs import CODECS
from seed_runtime.codecs.encode import adaptive, grid, symbols
from seed_runtime.format.header import Hole

SPARSE: Final = {"ppcls": (1.1, 0.65), "efflite0": (2.2, 0.7), "pprec": (1.8, 0.7), "basicpitch": (0.5, 0.5)}
"""Step as a share of a matrix's root mean square, and the magnitude in steps from which on a weight isn't 0."""
ELEMENTS_MAX: Final = 70_000
SAVED_LEAST: Final = 3.0
"""Least that codec 8 should save of a healed model [%]."""
DECODE_MOST: Final = 0.8
"""Most time for a healed ResNet-50 on one core [s]: a second is left for all of its assembly."""
RUNS: Final = 8


def run(quick: bool = False) -> Figures:
    graphs = {name: loaders.load(MODELS[name].prepare(cache_folder())) for name in (("ppcls",) if quick else SPARSE)}
    rows = [_row("resnet50", _healed(synthetic.resnet50()))]
    rows += [_row(name, _sparse(graph, *SPARSE[name])) for name, graph in graphs.items()]
    goals = [
        Goal("resnet50: saved", rows[0]["saved"], SAVED_LEAST, "%", least=True),
        Goal("resnet50: decoding", rows[0]["seconds"], DECODE_MOST, "s"),
    ]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _healed(graph: Graph) -> Iterator[tuple[Weight, np.ndarray]]:
    """Draw sparse integers for ResNet-50: fewer rows and columns live the wider a convolution is."""
    random = np.random.default_rng(50)

    def live(size: int) -> np.ndarray:
        share = float(np.interp(np.log2(size), [2, 6, 7, 8, 9, 10, 11], [0.9, 0.45, 0.23, 0.15, 0.09, 0.07, 0.06]))
        return random.random(size) < share * random.uniform(0.5, 1.5)

    for weight in graph.weights.values():
        rows, channels, taps = weight.shape[0], weight.shape[1], int(np.prod(weight.shape[2:]))
        scale = random.laplace(0, 1, (rows, channels, taps)) * np.exp(random.normal(-0.83, 0.35))
        scale *= np.exp(random.normal(0, 0.5, (rows, 1, 1)) + random.normal(0, 0.5, (1, channels, 1)))
        integers = np.sign(scale) * np.floor(np.abs(scale) + 0.45)
        integers *= live(rows)[:, None, None] & live(channels)[None, :, None]
        yield weight, integers.astype(np.int32).reshape(rows, -1)


def _sparse(graph: Graph, coarseness: float, threshold: float) -> Iterator[tuple[Weight, np.ndarray]]:
    for weight in graph.weights.values():
        if weight.dtype.name == "float32" and len(weight.shape) > 1 and 256 <= weight.count < ELEMENTS_MAX:
            values = as_float32(weight)
            units = values / max(coarseness * float(np.sqrt(np.square(values).mean())), 1e-30)
            yield weight, (np.sign(units) * np.floor(np.abs(units) + 1 - threshold)).astype(np.int32)


def _row(name: str, found: Iterator[tuple[Weight, np.ndarray]]) -> Figures:
    measure.note(name)
    matrices, holes = [], []
    for weight, integers in found:
        matrix = grid.matrix_of(grid.QuantizedMatrix(integers, 0.01))
        matrices.append(replace(matrix, kernel=kernel_of(weight)))
        holes.append(Hole(weight.dtype, (integers.size,), 0))
    tables, coded = symbols.encode(matrices), adaptive.encode(matrices)
    assert coded is not None
    theirs, ours = (sum(map(len, stream.chunks)) for stream in (tables, coded))
    with_tables, without = (_decoded(number, holes, stream.chunks) for number, stream in ((2, tables), (8, coded)))
    if with_tables[1] != without[1]:
        raise RuntimeError("the codecs give different weights")
    return {
        "model": name,
        "living": sum(matrix.symbols.size for matrix in matrices),
        "nonzero": sum(int(np.count_nonzero(matrix.symbols)) for matrix in matrices),
        "grid_bytes": theirs,
        "bytes": ours,
        "saved": measure.rounded(100 * (1 - ours / theirs)),
        "grid_seconds": measure.rounded(with_tables[0]),
        "seconds": measure.rounded(without[0]),
    }


def _decoded(number: int, holes: Sequence[Hole], chunks: Sequence[bytes]) -> tuple[float, str]:
    """Return the least processor time of decoding, which takes one core [s], and the digest of the weights."""

    def blocks() -> Iterator[np.ndarray]:
        return CODECS[number].decode(holes, iter([memoryview(chunk) for chunk in chunks]), "stream")

    best = float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        for _ in blocks():
            pass
        best = min(best, time.process_time() - start)
    digest = hashlib.sha256()
    for block in blocks():
        digest.update(np.ascontiguousarray(block))
    return best, digest.hexdigest()


def table(figures: Figures) -> list[str]:
    lines = [
        "| sparse integers | living | nonzero | codec 2 [B] | codec 8 [B] | saved | decoding [s]: codec 2 | codec 8 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {row['model']} | {row['living']:,} | {row['nonzero']:,} | {row['grid_bytes']:,} | {row['bytes']:,} "
        f"| **{row['saved']:.1f} %** | {row['grid_seconds']:.2f} | {row['seconds']:.2f} |"
        for row in figures["rows"]
    ]
