"""Weights and their codings in, streams out.

Weights of one codec follow each other in the weights file, so that one stream, one set of tables and one set of lanes
serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from joblib import Parallel, delayed

from seed_exporter.codecs import lowrank, moments
from seed_exporter.graph.matrix import as_float32, coded_view, with_mantissa
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize.allocate import MANTISSA_BITS, Coding
from seed_runtime.codecs import BY_NAME
from seed_runtime.codecs.encode import grid, raw, split, symbols
from seed_runtime.codecs.encode.symbols import CodedMatrix
from seed_runtime.codecs.floats import to_storage
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


class Encoder:
    """Codes one graph many times, as a search does, and nothing twice in a row.

    What it remembers takes as much memory as a seed, and a byte for each weight on a grid.
    """

    def __init__(self, graph: Graph, jobs: int = 2, *, remembers: bool = True) -> None:
        self.graph, self.jobs = graph, jobs
        self._remembers = remembers and graph.parameters <= STREAM_SYMBOLS_MAX
        self._streams: dict[tuple[str, int], tuple[Any, CodedStream]] = {}
        self._matrices: dict[str, tuple[float, CodedMatrix]] = {}

    def streams(
        self,
        codings: Mapping[str, Coding],
        *,
        names: Iterable[str] | None = None,
        progress: Callable[[int], None] | None = None,
        sizes_only: bool = False,
    ) -> list[CodedStream]:
        """All streams, in the order in which their weights stand in the weights file.

        Args:
            names: the weights to code, in the graph's order; all by default.
            progress: gets elements done since its last call.
            sizes_only: chunks have about their size, and no meaning.
        """
        chosen = self.graph.weights.values() if names is None else [self.graph.weights[name] for name in names]
        return [
            self._stream((codec, number), weights, codings, progress, sizes_only)
            for number, (codec, weights) in enumerate(_groups(chosen, codings))
        ]

    def _stream(
        self,
        place: tuple[str, int],
        weights: list[Weight],
        codings: Mapping[str, Coding],
        progress: Callable[[int], None] | None,
        sizes_only: bool,
    ) -> CodedStream:
        asked = sizes_only, [(weight.name, codings[weight.name]) for weight in weights]
        known = self._streams.get(place)
        if known is not None and known[0] == asked:
            if progress is not None:
                progress(sum(weight.count for weight in weights))
            return known[1]
        stream = self._coded(place[0], weights, codings, progress, sizes_only)
        # Codings of `lowrank` are equal by their steps alone.
        if self._remembers and stream.codec != "lowrank":
            self._streams[place] = asked, stream
        return stream

    def _coded(
        self,
        codec: str,
        weights: list[Weight],
        codings: Mapping[str, Coding],
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
        matrix = {"grid": self._grid_matrix, "split": _split_matrix}[codec]
        # Threads: NumPy lets go of the interpreter in all that takes time here, and weights need no copy.
        coded: list[CodedMatrix] = Parallel(n_jobs=self.jobs, prefer="threads")(
            delayed(matrix)(weight, codings[weight.name]) for weight in weights
        )
        stream = symbols.encode(coded, progress, sizes_only=sizes_only)
        return CodedStream(codec, names, stream.chunks, stream.entropy_bits)

    def _grid_matrix(self, weight: Weight, coding: Coding) -> CodedMatrix:
        step, matrix = self._matrices.get(weight.name, (0.0, None))
        if matrix is None or step != coding.step:
            matrix = grid.matrix_of(grid.quantize(as_float32(weight), coding.step), coding.step)
            if self._remembers:
                self._matrices[weight.name] = coding.step, matrix
        return matrix


def encode(
    graph: Graph,
    codings: Mapping[str, Coding],
    *,
    jobs: int = 2,
    progress: Callable[[int], None] | None = None,
    sizes_only: bool = False,
) -> list[CodedStream]:
    """What an `Encoder` makes of the graph, once."""
    return Encoder(graph, jobs, remembers=False).streams(codings, progress=progress, sizes_only=sizes_only)


def decoded(weight: Weight, coding: Coding) -> np.ndarray:
    """The weight as a device will have it, in the layout of `Weight.data`, without coding it.

    `coding`: one whose decoder rounds each element alone, so `grid`, `split` or `raw`.
    """
    if coding.codec != "grid":
        return _kept(weight, coding)
    integers = grid.quantize(as_float32(weight), coding.step)
    with np.errstate(over="ignore"):
        values = np.multiply(integers, np.float32(coding.step), dtype=np.float32, casting="same_kind")
    return to_storage(values, weight.dtype).reshape(weight.shape)


def order_of(streams: list[CodedStream]) -> list[str]:
    """Weights in the order of the weights file."""
    return [name for stream in streams for name in stream.names]


def _groups(chosen: Iterable[Weight], codings: Mapping[str, Coding]) -> Iterator[tuple[str, list[Weight]]]:
    """Weights that share a stream: same codec, same kind of symbols, within the limits of one stream."""
    kinds: dict[tuple[int, str], list[Weight]] = {}
    for weight in chosen:
        codec = codings[weight.name].codec
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


def _kept(weight: Weight, coding: Coding) -> np.ndarray:
    if coding.mantissa_bits is None:
        return weight.data
    return with_mantissa(weight.data, MANTISSA_BITS[weight.dtype.name], coding.mantissa_bits)


def _split_matrix(weight: Weight, coding: Coding) -> CodedMatrix:
    data = _kept(weight, coding)
    return split.matrix_of(data.reshape(coded_view(weight)), weight.dtype)
