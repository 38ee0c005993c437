"""Weights and their codings in, streams out.

Weights of one codec follow each other in the weights file, so that one stream, one set of tables and one set of lanes
serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from joblib import Parallel, delayed

from seed_exporter.allocate import MANTISSA_BITS, Coding
from seed_exporter.codecs import grid, lowrank, moments, raw, split, symbols
from seed_exporter.codecs.symbols import CodedMatrix
from seed_exporter.floats import as_float32, coded_view, with_mantissa
from seed_exporter.graph import Graph, Weight
from seed_runtime.codecs import BY_NAME
from seed_runtime.limits import SIDE_MAX

STREAM_SYMBOLS_MAX: Final = 1 << 27
"""A stream's symbols and classes are held at once while it is coded; 128 Mi make its lanes cheap."""
_ORDER: Final = ("raw", "split", "lowrank", "moments", "grid")


@dataclass(frozen=True)
class CodedStream:
    """One stream: the weights it fills, in order, and its chunks."""

    codec: str
    names: list[str]
    chunks: list[bytes]
    entropy_bits: float
    """Of the symbols under their contexts; 0 for codecs without symbols."""

    @property
    def number(self) -> int:
        return BY_NAME[self.codec].number

    @property
    def size(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


def encode(
    graph: Graph,
    codings: Mapping[str, Coding],
    *,
    jobs: int = 2,
    progress: Callable[[int], None] | None = None,
    sizes_only: bool = False,
) -> list[CodedStream]:
    """All streams, in the order in which their weights stand in the weights file.

    `progress` gets elements done since its last call. With `sizes_only` chunks have about their size, and no meaning.
    """
    groups = list(_groups(graph, codings))
    return [_stream(codec, weights, codings, jobs, progress, sizes_only) for codec, weights in groups]


def order_of(streams: list[CodedStream]) -> list[str]:
    """Weights in the order of the weights file."""
    return [name for stream in streams for name in stream.names]


def _groups(graph: Graph, codings: Mapping[str, Coding]) -> Iterator[tuple[str, list[Weight]]]:
    """Weights that share a stream: same codec, same kind of symbols, within the limits of one stream."""
    kinds: dict[tuple[int, str], list[Weight]] = {}
    for name, weight in graph.weights.items():
        codec = codings[name].codec
        # Exponents and bytes of different types have nothing to learn from each other.
        shared = "" if codec in ("grid", "lowrank") else weight.dtype.name
        kinds.setdefault((_ORDER.index(codec), shared), []).append(weight)
    for (codec_index, _), weights in sorted(kinds.items(), key=lambda item: item[0]):
        group: list[Weight] = []
        side = count = 0
        # A product of factors has the sides of both.
        room = SIDE_MAX // 2 if _ORDER[codec_index] == "lowrank" else SIDE_MAX
        for weight in weights:
            rows, cols = coded_view(weight) if _ORDER[codec_index] != "raw" else (0, 0)
            if group and (side + rows + cols > room or count + weight.count > STREAM_SYMBOLS_MAX):
                yield _ORDER[codec_index], group
                group, side, count = [], 0, 0
            group.append(weight)
            side, count = side + rows + cols, count + weight.count
        yield _ORDER[codec_index], group


def _stream(
    codec: str,
    weights: list[Weight],
    codings: Mapping[str, Coding],
    jobs: int,
    progress: Callable[[int], None] | None,
    sizes_only: bool,
) -> CodedStream:
    names = [weight.name for weight in weights]
    if codec == "raw":
        data = b"".join(_kept(weight, codings[weight.name]).tobytes() for weight in weights)
        width = max(1, weights[0].dtype.bits // 8)
        chunks = raw.encode(data, width)
        if progress is not None:
            progress(sum(weight.count for weight in weights))
        return CodedStream(codec, names, chunks, 0.0)
    if codec == "moments":
        tensors = [
            moments.encode(as_float32(weight), codings[weight.name].components, seed=index)
            for index, weight in enumerate(weights)
        ]
        return CodedStream(codec, names, moments.stream(tensors), 0.0)
    if codec == "lowrank":
        factors = [factors for name in names if (factors := codings[name].factors) is not None]
        stream = lowrank.stream(factors, progress, sizes_only=sizes_only)
        return CodedStream(codec, names, stream.chunks, stream.entropy_bits)
    matrix = {"grid": _grid_matrix, "split": _split_matrix}[codec]
    # Threads: NumPy lets go of the interpreter in all that takes time here, and weights need no copy.
    coded: list[CodedMatrix] = Parallel(n_jobs=jobs, prefer="threads")(
        delayed(matrix)(weight, codings[weight.name]) for weight in weights
    )
    stream = symbols.encode(coded, progress, sizes_only=sizes_only)
    return CodedStream(codec, names, stream.chunks, stream.entropy_bits)


def _kept(weight: Weight, coding: Coding) -> np.ndarray:
    if coding.mantissa_bits is None:
        return weight.data
    return with_mantissa(weight.data, MANTISSA_BITS[weight.dtype.name], coding.mantissa_bits)


def _grid_matrix(weight: Weight, coding: Coding) -> CodedMatrix:
    return grid.matrix_of(grid.quantize(as_float32(weight), coding.step), coding.step)


def _split_matrix(weight: Weight, coding: Coding) -> CodedMatrix:
    data = _kept(weight, coding)
    return split.matrix_of(data.reshape(coded_view(weight)), weight.dtype)
